// Continuous batching over one loaded model: requests come from any thread, one engine thread forms mixed
// batches (decode tokens first, then prompt chunks), runs them and streams the answers' text.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "decoder/step_runner.h"
#include "device/step.h"
#include "engine/page_pool.h"
#include "engine/sampling_options.h"
#include "grammar/grammar.h"
#include "observe/ceilings.h"
#include "observe/step_log.h"
#include "program/cost.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {

// What the engine needs of a vocabulary. Thread-safe.
class TokenText {
 public:
  virtual ~TokenText() = default;
  // Bytes; those of control tokens are empty unless `control`.
  virtual std::string_view piece(TokenId id, bool control) const = 0;
  virtual bool is_end(TokenId id) const = 0;
};

enum class DoneReason : std::uint8_t { stop, length, cancelled, error };
const char* done_reason_name(DoneReason reason);  // "stop", "length", "cancel", "error"

// How an answer ended and what it took. Durations in nanoseconds.
struct Answer {
  DoneReason reason = DoneReason::stop;
  ErrorKind error_kind = ErrorKind::internal;  // of DoneReason::error
  std::string error;
  std::string stop_string;  // the one that ended it, if one did
  std::uint32_t prompt_tokens = 0;
  std::uint32_t cached_tokens = 0;     // of the prompt: their state was there already
  std::uint32_t generated_tokens = 0;  // an end token counts
  std::int64_t queue_ns = 0;           // from submit() to the first step
  std::int64_t prompt_ns = 0;          // from the first step to the first token
  // From the first token to the last; of an only token, the step that gave it (which ends prompt_ns too).
  std::int64_t generation_ns = 0;
  std::int64_t total_ns = 0;
  std::uint64_t seed = 0;         // the one used
  std::uint32_t preemptions = 0;  // times its pages were taken for an older request
  std::uint32_t prompt_read = 0;  // tokens of the prompt that were really read: fewer when it was cancelled
  // The machine's limit for the steps this answer took part in ÷ the time they took, at most 1; 0: unknown.
  double prompt_achieved = 0;
  double generation_achieved = 0;
  // How many times too low a limit was that this answer has beaten; 0: it wasn't.
  double prompt_beat = 0;
  double generation_beat = 0;
  double prompt_tokens_per_second() const;  // of those read
  double generated_tokens_per_second() const;
};

// How likely the model found a token: a natural logarithm.
struct TokenChance {
  TokenId token = 0;
  float logprob = 0;
};
inline constexpr std::uint32_t kMostChances = 20;
// A token of an answer, and the likeliest ones in its place, best first.
struct TokenChances {
  TokenChance drawn;
  std::uint32_t n_top = 0;
  std::array<TokenChance, kMostChances> top;
};

// Added to a token's logit before anything else.
struct TokenBias {
  TokenId token;
  float add;
};

// What becomes of a prompt's hidden states when these are wanted instead of an answer.
enum class Pooling : std::uint8_t { none, last, mean };

struct EngineRequest : AnswerOptions {
  std::vector<TokenId> prompt;  // at least one, fewer than the context
  std::uint32_t context = 0;    // stop when the sequence has so many tokens; 0: the model's context
  // Called from the engine's thread: must be quick and must not block nor call the engine, except cancel().
  // Text is whole UTF-8 characters, never part of a stop string. on_done is the last call, exactly once.
  std::function<void(std::string_view text)> on_text;
  std::function<void(const Answer& answer)> on_done;
  // The same, while the prompt is read: how many of its tokens are, those that were cached included. First
  // before its first step, then after each.
  std::function<void(std::uint32_t read, std::uint32_t total)> on_prompt;
  std::vector<TokenBias> biases;
  // From 0 on: tell every token's chances, with so many of the likeliest; before the token's text, and never
  // of an end token. These and biases bring logits to the host, which costs every running answer some time.
  std::int32_t logprobs = -1;
  std::function<void(const TokenChances& chances)> on_chances;
  // What the answer is held to, from its beginning or from the end of its thoughts, where `grammar_after`
  // marks that. It is whole when it ends, unless it is stopped or the tokens can't suffice: near their limit
  // it is led to its shortest end, and has DoneReason::length. Logits come to the host for it, too.
  std::shared_ptr<const Grammar> grammar;
  std::string grammar_after;
  bool control_text = false;  // control tokens are told as text, end tokens excepted
  // Not none: no answer, but an embedding of the prompt.
  Pooling pooling = Pooling::none;
};

// A request on its way. Copies share it; dropping all of them does not cancel. Thread-safe.
class Generation {
 public:
  Generation() = default;
  explicit operator bool() const { return state_ != nullptr; }
  // Pulls text when the request has no on_text: waits for more, false at the end. One puller.
  bool next(std::string& text);
  // Waits for the end.
  const Answer& wait();
  // The answer ends soon with DoneReason::cancelled. Harmless when it has ended.
  void cancel();
  bool done() const;
  // After the end: the generated ids, an end token included. Valid as long as a copy of this lives.
  std::span<const TokenId> tokens() const;
  // After the end of a request with `pooling`: [n_embd], not normalised; empty when it didn't end well.
  std::span<const float> embedding() const;

  struct State;

 private:
  friend class Engine;
  std::shared_ptr<State> state_;
};

struct EngineOptions {
  std::uint32_t max_queue = 512;  // requests waiting; more are refused
  bool reuse_prefixes = true;
  // Seconds that a step of this shape takes at the machine's limit, 0 where unknown; empty: never known.
  // Called from the engine's thread.
  std::function<double(const StepShape& shape)> step_limit;
  // An answer was faster than that, `factor` times, in steps like `shape`. The engine's thread calls it,
  // rarely.
  std::function<void(const StepShape& shape, double factor)> limit_beaten;
};

struct EngineStats {
  std::uint32_t waiting = 0;
  std::uint32_t active = 0;
  std::uint32_t slots = 0;
  std::uint64_t finished = 0;
  std::uint64_t failed = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t cached_tokens = 0;
  std::uint64_t generated_tokens = 0;
  std::vector<PoolUse> pools;  // by group
  StepTotals steps;
};

class Engine {
 public:
  // `runner` and `text` must outlive the engine. Starts the engine's thread.
  Engine(StepRunner& runner, const TokenText& text, EngineOptions options = {});
  // Ends every request with DoneReason::cancelled and joins.
  ~Engine();

  // Throws Error: bad_input for an empty or over-long prompt, ids outside the vocabulary or senseless
  // parameters; busy when the queue is full; cancelled when the engine is stopping.
  Generation submit(EngineRequest request);
  // The tokens that a sequence may reach.
  std::uint32_t context() const;
  EngineStats stats() const;
  std::vector<StepRecord> recent_steps(std::size_t most) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steelyard
