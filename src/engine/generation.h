// The inside of a Generation: what the engine's thread and the caller's share. Private to engine/.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/sequence.h"
#include "grammar/token_masks.h"
#include "program/cost.h"
#include "text/stream.h"

namespace steelyard {

using EngineClock = std::chrono::steady_clock;

// Where requests come in, and what wakes the engine's thread.
struct EngineInbox {
  std::mutex mutex;
  std::condition_variable ready;
  std::vector<std::shared_ptr<Generation::State>> arrivals;
  bool stopping = false;
  std::uint32_t waiting = 0;  // in the scheduler's queue, as of the last step
};

struct Generation::State : Sequence {
  // Set by submit(), then read-only.
  EngineRequest request;
  EngineClock::time_point submitted;

  std::atomic<bool> cancelled = false;

  // The engine's thread only.
  Utf8Stream utf8;
  StopMatcher stops{{}};
  EngineClock::time_point first_step, first_token, last_token;
  double first_token_seconds = 0;  // of the step that gave it
  bool started = false;
  std::uint32_t prompt_read = 0;
  double limit_seconds[2] = {}, known_seconds[2] = {};  // [0] prompt, [1] generation
  StepShape last_shape[2];
  std::unique_ptr<TokenConstraint> constraint;  // null: the answer is free
  bool squeezed = false;                        // it was led to its end
  std::vector<float> embedding;                 // a sum, then the mean, where it is one

  // Shared with the caller.
  std::mutex mutex;
  std::condition_variable changed;
  std::string text;  // not pulled yet
  bool ended = false;
  Answer answer;

  std::uint32_t generated() const { return static_cast<std::uint32_t>(tokens.size()) - prompt_tokens; }
  // How much of the prompt is read, to the caller.
  void tell_prompt(std::uint32_t read) const {
    if (request.on_prompt) request.on_prompt(std::min(read, prompt_tokens), prompt_tokens);
  }
  // Text of one token to the caller; false when a stop string ended the answer.
  bool push(std::string_view piece);
  void tell_chances(const TokenChances& chances);
  // The last call: held-back text, figures, on_done.
  void end(DoneReason reason);
  void fail(ErrorKind kind, const std::string& message);

 private:
  void deliver(std::string_view text);
  void count(Answer& a) const;
  void hold_against_limit(int part, double& achieved, double& beat) const;
};

}  // namespace steelyard
