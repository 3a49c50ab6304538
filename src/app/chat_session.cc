#include "app/chat_session.h"

#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "app/interrupt.h"
#include "base/error.h"
#include "engine/chat.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

// All of `text` as a number, or nothing.
template <typename T>
std::optional<T> number_of(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
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

std::string rate_text(double rate, double achieved, double beat) {
  if (!(rate > 0)) return fmt::format("{:>9} tokens/s", "–");
  std::string text = fmt::format("{:9.1f} tokens/s", rate);
  if (achieved > 0) text += fmt::format(", {:.0f} % of the measured limit", 100 * achieved);
  if (beat > 1) text += fmt::format(", which was {:.0f} % too low and is raised", 100 * (beat - 1));
  return text;
}

// Null for what wasn't measured.
Json known(double value) { return value > 0 ? Json(value) : Json(); }

}  // namespace

void AnswerSettings::set(std::string_view name, const std::string& value) {
  if (const NumberOption* option = find_number_option(name)) {
    const auto number = number_of<double>(value);
    if (!number) throw_error(ErrorKind::bad_input, "{} wants a number, not '{}'", name, value);
    option->set(*this, *number);
  } else if (name == "seed") {
    const auto seed = number_of<std::int64_t>(value);
    if (!seed)
      throw_error(ErrorKind::bad_input, "seed wants a whole number, or -1 for a random one, not '{}'", value);
    set_seed(*this, *seed);
  } else if (name == "stop") {
    if (value.empty()) throw_error(ErrorKind::bad_input, "stop wants a text");
    stop.push_back(value);
  } else {
    throw_error(ErrorKind::bad_input, "there is no parameter '{}'; there are {}", name,
                fmt::join(answer_option_names(), ", "));
  }
}

std::vector<std::string> AnswerSettings::list() const {
  std::vector<std::string> lines;
  for (const NumberOption& option : number_options())
    lines.push_back(option.whole() ? fmt::format("{:18} {:.0f}", option.name, option.of(*this))
                                   : fmt::format("{:18} {:g}", option.name, option.of(*this)));
  lines.push_back(fmt::format("{:18} {}", "seed", random_seed ? "random" : std::to_string(sampling.seed)));
  for (const auto& text : stop) lines.push_back(fmt::format("{:18} {}", "stop", Json(text).dump()));
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
  static_cast<AnswerOptions&>(request) = settings_;
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

namespace {
// What of the prompt wasn't read: it was there already, or the answer was cancelled before.
std::string prompt_note(const Answer& a) {
  std::string text;
  if (a.cached_tokens) text = fmt::format(" ({} reused)", a.cached_tokens);
  if (a.prompt_read + a.cached_tokens < a.prompt_tokens) text += fmt::format(" ({} read)", a.prompt_read);
  return text;
}
}  // namespace

std::string timings_text(const Answer& a, double load_seconds) {
  std::string text;
  if (load_seconds >= 0) text += fmt::format("load        {:8.2f} s\n", load_seconds);
  text +=
      fmt::format("prompt      {:8.2f} s  {:5} tokens{}  {}\n", seconds(a.prompt_ns), a.prompt_tokens,
                  prompt_note(a), rate_text(a.prompt_tokens_per_second(), a.prompt_achieved, a.prompt_beat));
  text +=
      fmt::format("generation  {:8.2f} s  {:5} tokens  {}\n", seconds(a.generation_ns), a.generated_tokens,
                  rate_text(a.generated_tokens_per_second(), a.generation_achieved, a.generation_beat));
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
                {"prompt_tokens_read", a.prompt_read},
                {"prompt_tokens_per_second", known(a.prompt_tokens_per_second())},
                {"generated_tokens_per_second", known(a.generated_tokens_per_second())},
                {"prompt_achieved_over_limit", known(a.prompt_achieved)},
                {"generation_achieved_over_limit", known(a.generation_achieved)},
                {"seed", a.seed}};
  if (load_seconds >= 0) value["load_seconds"] = load_seconds;
  return value;
}

}  // namespace steelyard
