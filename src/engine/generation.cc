#include "engine/generation.h"

#include <algorithm>
#include <utility>

#include "text/vocabulary.h"

namespace steelyard {
namespace {

constexpr double kLeastSeconds = 0.005;  // of steps, for a speed to be believed

double rate(double tokens, std::int64_t nanoseconds) {
  return nanoseconds > 0 ? tokens * 1e9 / static_cast<double>(nanoseconds) : 0;
}

std::int64_t nanoseconds(EngineClock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

}  // namespace

const char* done_reason_name(DoneReason reason) {
  switch (reason) {
    case DoneReason::stop:
      return "stop";
    case DoneReason::length:
      return "length";
    case DoneReason::cancelled:
      return "cancel";
    case DoneReason::error:
      return "error";
  }
  return "error";
}

double Answer::prompt_tokens_per_second() const { return rate(prompt_read, prompt_ns); }

// The first token came with the prompt's last step.
double Answer::generated_tokens_per_second() const {
  return generated_tokens > 1 ? rate(generated_tokens - 1, generation_ns) : 0;
}

bool Generation::State::push(std::string_view piece) {
  deliver(stops.push(utf8.push(piece)));
  return !stops.stopped();
}

void Generation::State::tell_chances(const TokenChances& chances) {
  if (!request.on_chances) return;
  try {
    request.on_chances(chances);
  } catch (...) {
    cancelled = true;
  }
}

// A caller's own exception ends its request, not the engine.
void Generation::State::deliver(std::string_view piece) {
  if (piece.empty()) return;
  if (request.on_text) {
    try {
      request.on_text(piece);
    } catch (...) {
      cancelled = true;
    }
    return;
  }
  {
    const std::lock_guard lock(mutex);
    text += piece;
  }
  changed.notify_all();
}

// A limit that was beaten was too low: this answer has measured a better one.
void Generation::State::hold_against_limit(int part, double& achieved, double& beat) const {
  if (known_seconds[part] <= 0) return;
  const double ratio = limit_seconds[part] / known_seconds[part];
  achieved = std::min(ratio, 1.0);
  if (ratio > 1 && known_seconds[part] >= kLeastSeconds) beat = ratio;
}

void Generation::State::count(Answer& a) const {
  const auto now = EngineClock::now();
  a.prompt_tokens = prompt_tokens;
  a.cached_tokens = cached_tokens;
  a.generated_tokens = generated();
  a.total_ns = nanoseconds(now - submitted);
  a.queue_ns = started ? nanoseconds(first_step - submitted) : a.total_ns;
  if (started) a.prompt_ns = nanoseconds((a.generated_tokens > 0 ? first_token : now) - first_step);
  if (a.generated_tokens > 1) a.generation_ns = nanoseconds(last_token - first_token);
  if (a.generated_tokens == 1) a.generation_ns = static_cast<std::int64_t>(first_token_seconds * 1e9);
  a.seed = sampling.seed;
  a.preemptions = preemptions;
  a.stop_string = stops.matched();
  a.prompt_read = std::min(prompt_read, prompt_tokens - cached_tokens);
  hold_against_limit(0, a.prompt_achieved, a.prompt_beat);
  hold_against_limit(1, a.generation_achieved, a.generation_beat);
}

void Generation::State::end(DoneReason reason) {
  if (reason != DoneReason::error) {
    deliver(stops.push(utf8.flush()));
    deliver(stops.flush());
    if (stops.stopped()) reason = DoneReason::stop;
  }
  {
    const std::lock_guard lock(mutex);
    answer.reason = reason;
    count(answer);
    ended = true;
  }
  changed.notify_all();
  if (request.on_done) {
    try {
      request.on_done(answer);
    } catch (...) {  // nobody is left to tell
    }
  }
  request.on_text = {};
  request.on_done = {};
  request.on_chances = {};
}

void Generation::State::fail(ErrorKind kind, const std::string& message) {
  answer.error_kind = kind;
  answer.error = message;
  end(DoneReason::error);
}

bool Generation::next(std::string& text) {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return !state_->text.empty() || state_->ended; });
  text = std::exchange(state_->text, {});
  return !text.empty();
}

const Answer& Generation::wait() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->ended; });
  return state_->answer;
}

bool Generation::done() const {
  const std::lock_guard lock(state_->mutex);
  return state_->ended;
}

void Generation::cancel() {
  if (state_) state_->cancelled = true;  // the engine looks before every step
}

std::span<const float> Generation::embedding() const { return state_->embedding; }

std::span<const TokenId> Generation::tokens() const {
  return std::span<const TokenId>(state_->tokens).subspan(state_->prompt_tokens);
}

}  // namespace steelyard
