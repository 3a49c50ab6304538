#include "app/chat_session.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

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

double seconds(std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }

std::string rate_text(double rate, double achieved, double beat) {
  if (!(rate > 0)) return fmt::format("{:>9} tokens/s", "–");
  std::string text = fmt::format("{:9.1f} tokens/s", rate);
  if (achieved > 0) text += fmt::format(", {:.0f} % of the measured limit", 100 * achieved);
  // On a line of its own, so that all fit 80 columns.
  if (beat > 1)
    text += fmt::format("\n{:20}the limit was {:.0f} % too low and is raised", "", 100 * (beat - 1));
  return text;
}

// Null for what wasn't measured.
Json known(double value) { return value > 0 ? Json(value) : Json(); }

}  // namespace

void AnswerSettings::set(std::string_view name, const std::string& value) {
  if (const NumberOption* option = find_number_option(name)) {
    const auto number = number_of<double>(value);
    if (!number) throw_error(ErrorKind::bad_input, "{} wants a number, not '{}'", name, value);
    AnswerWishes::set(*option, *number);
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

std::vector<std::string> AnswerSettings::list(const AnswerOptions& defaults) const {
  const AnswerOptions all = over(defaults);
  std::vector<std::string> lines;
  for (const NumberOption& option : number_options())
    lines.push_back(option.whole() ? fmt::format("{:18} {:.0f}", option.name, option.of(all))
                                   : fmt::format("{:18} {:g}", option.name, option.of(all)));
  lines.push_back(fmt::format("{:18} {}", "seed", random_seed ? "random" : std::to_string(sampling.seed)));
  for (const auto& text : stop) lines.push_back(fmt::format("{:18} {}", "stop", Json(text).dump()));
  return lines;
}

// What comes from the engine's thread, on its way to the one that prints.
class AnswerQueue {
 public:
  struct News {
    std::string text;
    std::uint32_t read = 0, total = 0;  // of the prompt; total 0: nothing new
  };

  void push(std::string_view text) {
    change([&] { news_.text += text; });
  }
  void prompt_read(std::uint32_t read, std::uint32_t total) {
    change([&] { news_.read = read, news_.total = total; });
  }
  void finish() {
    change([&] { done_ = true; });
  }
  // What has come since the last call; waits for it at most 50 ms. False: nothing more will come.
  bool take(News& news) {
    std::unique_lock lock(mutex_);
    const auto some = [&] { return !news_.text.empty() || news_.total > 0; };
    changed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return done_ || some(); });
    const bool more = some() || !done_;
    news = std::exchange(news_, {});
    return more;
  }

 private:
  template <typename Fn>
  void change(Fn&& fn) {
    const std::lock_guard lock(mutex_);
    fn();
    changed_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  News news_;
  bool done_ = false;
};

std::string cut_text(const Answer& answer, std::int32_t num_predict, std::uint32_t context) {
  if (answer.reason == DoneReason::cancelled) return "the answer was cut by Ctrl-C";
  if (answer.reason != DoneReason::length) return {};
  if (num_predict >= 0 && answer.generated_tokens >= static_cast<std::uint32_t>(num_predict))
    return fmt::format("the answer was cut after {} token{} (num_predict)", answer.generated_tokens,
                       answer.generated_tokens == 1 ? "" : "s");
  return fmt::format("the answer was cut: the context of {} tokens is full (--context makes it larger)",
                     context);
}

ChatSession::ChatSession(LoadedModel& model, AnswerSettings settings, bool raw)
    : model_(&model), settings_(std::move(settings)), raw_(raw) {}

void ChatSession::set_model(LoadedModel& model) { model_ = &model; }

std::uint32_t ChatSession::context() const {
  const std::uint32_t most = model_->engine().context();
  return context_ > 0 ? std::min(context_, most) : most;
}

void ChatSession::set_system(const std::string& text) { system_ = text; }

void ChatSession::set_beginning(Json messages) {
  beginning_ = std::move(messages);
  clear();
}

FittedChat ChatSession::encode(const std::string& prompt) const {
  if (raw()) return {.prompt = model_->encode_text(prompt)};
  ChatInput input;
  if (!system_.empty()) input.messages.push_back({{"role", "system"}, {"content", system_}});
  for (const Json& turn : turns_) input.messages.push_back(turn);
  input.messages.push_back({{"role", "user"}, {"content", prompt}});
  return model_->fit_chat(input, answer_reserve(settings_.num_predict, context()), context());
}

ChatSession::Reply ChatSession::ask(const std::string& prompt, const OnText& on_text,
                                    const OnPrompt& on_prompt) {
  FittedChat fitted = encode(prompt);
  if (fitted.prompt.size() >= context())
    throw_error(ErrorKind::bad_input,
                "the prompt has {} tokens and the context holds {}: shorten it or give a larger --context",
                fitted.prompt.size(), context());
  EngineRequest request;
  static_cast<AnswerOptions&>(request) = answer_options();
  request.prompt = std::move(fitted.prompt);
  request.context = context_;
  const auto queue = std::make_shared<AnswerQueue>();
  request.on_text = [queue](std::string_view text) { queue->push(text); };
  request.on_done = [queue](const Answer&) { queue->finish(); };
  if (on_prompt)
    request.on_prompt = [queue](std::uint32_t read, std::uint32_t total) { queue->prompt_read(read, total); };
  Reply reply = follow(model_->engine().submit(std::move(request)), *queue, on_text, on_prompt);
  if (reply.answer.reason == DoneReason::error) throw Error(reply.answer.error_kind, reply.answer.error);
  reply.dropped_turns = fitted.dropped_turns;
  if (!raw()) {
    turns_.erase(turns_.begin(), turns_.begin() + static_cast<std::ptrdiff_t>(fitted.dropped_messages));
    turns_.push_back({{"role", "user"}, {"content", prompt}});
    turns_.push_back({{"role", "assistant"}, {"content", reply.text}});
  }
  return reply;
}

ChatSession::Reply ChatSession::follow(Generation generation, AnswerQueue& queue, const OnText& on_text,
                                       const OnPrompt& on_prompt) {
  Reply reply;
  try {
    AnswerQueue::News news;
    bool cut = false;
    while (queue.take(news)) {
      cut = cut || InterruptScope::interrupted();
      if (cut) generation.cancel();
      if (cut) continue;  // what still comes was not seen when the key was pressed
      if (news.total > 0) on_prompt(news.read, news.total);
      if (news.text.empty()) continue;
      reply.text += news.text;
      on_text(news.text);
    }
  } catch (...) {
    generation.cancel();
    generation.wait();
    throw;
  }
  reply.answer = generation.wait();
  return reply;
}

std::string timings_text(const Answer& a, double load_seconds) {
  const auto line = [](const char* name, double seconds, std::uint32_t tokens, double rate, double achieved,
                       double beat) {
    return fmt::format("{:<11}{:7.2f} s{:6} tokens{}\n", name, seconds, tokens,
                       rate_text(rate, achieved, beat));
  };
  const auto of_the_prompt = [](const char* name, std::uint32_t tokens) {
    return fmt::format("{:<11}{:9}{:6} tokens of the prompt\n", name, "", tokens);
  };
  std::string text;
  if (load_seconds >= 0) text += fmt::format("{:<11}{:7.2f} s\n", "load", load_seconds);
  text += line("prompt", seconds(a.prompt_ns), a.prompt_tokens, a.prompt_tokens_per_second(),
               a.prompt_achieved, a.prompt_beat);
  if (a.cached_tokens) text += of_the_prompt("reused", a.cached_tokens);
  if (a.prompt_read + a.cached_tokens < a.prompt_tokens) text += of_the_prompt("read", a.prompt_read);
  text += line("generation", seconds(a.generation_ns), a.generated_tokens, a.generated_tokens_per_second(),
               a.generation_achieved, a.generation_beat);
  text += fmt::format("{:<11}{:7.2f} s  ended by {}, seed {}\n", "total", seconds(a.total_ns),
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
