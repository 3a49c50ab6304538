#include "app/chat_session.h"

#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "app/interrupt.h"
#include "base/error.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

template <typename T>
T parse_number(std::string_view name, const std::string& text, double low, double high) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= low && value <= high))
    throw_error(ErrorKind::bad_input, "{} wants a number from {} to {}, not '{}'", name, low, high, text);
  return value;
}

// Text on its way from the engine's thread to the one that prints.
class TextQueue {
 public:
  void push(std::string_view text) {
    const std::lock_guard lock(mutex_);
    text_ += text;
    changed_.notify_one();
  }
  void finish() {
    const std::lock_guard lock(mutex_);
    done_ = true;
    changed_.notify_one();
  }
  // What has come since the last call; waits for it at most 50 ms. False: nothing more will come.
  bool take(std::string& text) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return done_ || !text_.empty(); });
    text = std::exchange(text_, {});
    return !text.empty() || !done_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
  bool done_ = false;
};

double seconds(std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }

std::string rate_text(double rate, double achieved) {
  std::string text = fmt::format("{:9.1f} tokens/s", rate);
  if (achieved > 0) text += fmt::format(", {:.0f} % of the measured limit", 100 * achieved);
  return text;
}

}  // namespace

void AnswerSettings::set(std::string_view name, const std::string& value) {
  const auto real = [&](double low, double high) {
    return static_cast<float>(parse_number<double>(name, value, low, high));
  };
  const auto whole = [&](double low, double high) {
    return parse_number<std::int64_t>(name, value, low, high);
  };
  const auto small = [&](double low) { return static_cast<std::int32_t>(whole(low, 1 << 30)); };
  if (name == "temperature") {
    sampling.temperature = real(0, 100);
  } else if (name == "top_k") {
    sampling.top_k = small(0);
  } else if (name == "top_p") {
    sampling.top_p = real(0, 1);
  } else if (name == "min_p") {
    sampling.min_p = real(0, 1);
  } else if (name == "typical_p") {
    sampling.typical_p = real(0, 1);
  } else if (name == "repeat_penalty") {
    sampling.repeat_penalty = real(0.01, 100);
  } else if (name == "presence_penalty") {
    sampling.presence_penalty = real(-100, 100);
  } else if (name == "frequency_penalty") {
    sampling.frequency_penalty = real(-100, 100);
  } else if (name == "repeat_last_n") {
    sampling.repeat_last_n = small(-1);
  } else if (name == "num_predict") {
    num_predict = small(-1);
  } else if (name == "seed") {
    const std::int64_t seed = whole(-1, 9.2e18);
    random_seed = seed < 0;
    if (seed >= 0) sampling.seed = static_cast<std::uint64_t>(seed);
  } else if (name == "stop") {
    if (value.empty()) throw_error(ErrorKind::bad_input, "stop wants a text");
    stop.push_back(value);
  } else {
    throw_error(
        ErrorKind::bad_input,
        "there is no parameter '{}'; there are temperature, top_k, top_p, min_p, typical_p, repeat_penalty, "
        "presence_penalty, frequency_penalty, repeat_last_n, num_predict, seed and stop",
        name);
  }
}

std::vector<std::string> AnswerSettings::list() const {
  const SamplingParams& s = sampling;
  std::vector<std::string> lines = {
      fmt::format("temperature        {:g}", s.temperature),
      fmt::format("top_k              {}", s.top_k),
      fmt::format("top_p              {:g}", s.top_p),
      fmt::format("min_p              {:g}", s.min_p),
      fmt::format("typical_p          {:g}", s.typical_p),
      fmt::format("repeat_penalty     {:g}", s.repeat_penalty),
      fmt::format("presence_penalty   {:g}", s.presence_penalty),
      fmt::format("frequency_penalty  {:g}", s.frequency_penalty),
      fmt::format("repeat_last_n      {}", s.repeat_last_n),
      fmt::format("num_predict        {}", num_predict),
      fmt::format("seed               {}", random_seed ? std::string("random") : fmt::format("{}", s.seed)),
  };
  for (const auto& text : stop) lines.push_back(fmt::format("stop               {}", Json(text).dump()));
  return lines;
}

ChatSession::ChatSession(LoadedModel& model, AnswerSettings settings, bool raw)
    : model_(model), settings_(std::move(settings)), raw_(raw || !model.chat_template()) {}

void ChatSession::set_system(const std::string& text) { system_ = text; }

std::vector<TokenId> ChatSession::encode(const std::string& prompt) const {
  if (raw_) return model_.encode_text(prompt);
  ChatInput input;
  if (!system_.empty()) input.messages.push_back({{"role", "system"}, {"content", system_}});
  for (const Json& turn : turns_) input.messages.push_back(turn);
  input.messages.push_back({{"role", "user"}, {"content", prompt}});
  return model_.encode_chat(input);
}

ChatSession::Reply ChatSession::ask(const std::string& prompt, const OnText& on_text) {
  EngineRequest request;
  request.prompt = encode(prompt);
  const std::uint32_t context = model_.engine().context();
  if (request.prompt.size() >= context)
    throw_error(
        ErrorKind::bad_input, "the {} has {} tokens and the context holds {}: {}",
        raw_ || turns_.empty() ? "prompt" : "conversation", request.prompt.size(), context,
        turns_.empty() ? "shorten it or give a larger --context" : "/clear it or give a larger --context");
  request.sampling = settings_.sampling;
  request.random_seed = settings_.random_seed;
  request.num_predict = settings_.num_predict;
  request.stop = settings_.stop;
  const auto queue = std::make_shared<TextQueue>();
  request.on_text = [queue](std::string_view text) { queue->push(text); };
  request.on_done = [queue](const Answer&) { queue->finish(); };
  Generation generation = model_.engine().submit(std::move(request));

  Reply reply;
  try {
    std::string text;
    while (queue->take(text)) {
      if (InterruptScope::interrupted()) generation.cancel();
      if (text.empty()) continue;
      reply.text += text;
      on_text(text);
    }
  } catch (...) {
    generation.cancel();
    generation.wait();
    throw;
  }
  reply.answer = generation.wait();
  if (reply.answer.reason == DoneReason::error) throw Error(reply.answer.error_kind, reply.answer.error);
  if (!raw_) {
    turns_.push_back({{"role", "user"}, {"content", prompt}});
    turns_.push_back({{"role", "assistant"}, {"content", reply.text}});
  }
  return reply;
}

std::string timings_text(const Answer& a, double load_seconds) {
  std::string text;
  if (load_seconds >= 0) text += fmt::format("load        {:8.2f} s\n", load_seconds);
  text += fmt::format("prompt      {:8.2f} s  {:5} tokens{}  {}\n", seconds(a.prompt_ns), a.prompt_tokens,
                      a.cached_tokens ? fmt::format(" ({} reused)", a.cached_tokens) : std::string(),
                      rate_text(a.prompt_tokens_per_second(), a.prompt_achieved));
  text += fmt::format("generation  {:8.2f} s  {:5} tokens  {}\n", seconds(a.generation_ns),
                      a.generated_tokens, rate_text(a.generated_tokens_per_second(), a.generation_achieved));
  text += fmt::format("total       {:8.2f} s  ended by {}, seed {}\n", seconds(a.total_ns),
                      a.stop_string.empty() ? done_reason_name(a.reason) : "a stop string", a.seed);
  return text;
}

Json timings_json(const Answer& a, double load_seconds) {
  Json value = {{"done_reason", done_reason_name(a.reason)},
                {"prompt_tokens", a.prompt_tokens},
                {"cached_tokens", a.cached_tokens},
                {"generated_tokens", a.generated_tokens},
                {"prompt_seconds", seconds(a.prompt_ns)},
                {"generation_seconds", seconds(a.generation_ns)},
                {"total_seconds", seconds(a.total_ns)},
                {"prompt_tokens_per_second", a.prompt_tokens_per_second()},
                {"generated_tokens_per_second", a.generated_tokens_per_second()},
                {"prompt_achieved_over_limit", a.prompt_achieved},
                {"generation_achieved_over_limit", a.generation_achieved},
                {"seed", a.seed}};
  if (load_seconds >= 0) value["load_seconds"] = load_seconds;
  return value;
}

}  // namespace steelyard
