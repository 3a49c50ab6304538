#include "engine/engine.h"

#include <algorithm>
#include <exception>
#include <random>
#include <thread>
#include <utility>

#include "engine/errors.h"
#include "engine/generation.h"
#include "engine/host_draw.h"
#include "engine/scheduler.h"
#include "grammar/token_masks.h"
#include "text/stream.h"

namespace steelyard {
namespace {

using State = Generation::State;

std::int64_t since_epoch_ns(EngineClock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

std::pair<ErrorKind, std::string> reason_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& e) {
    return {e.kind(), e.what()};
  } catch (const std::exception& e) {
    return {ErrorKind::internal, e.what()};
  } catch (...) {
    return {ErrorKind::internal, "a step failed for an unknown reason"};
  }
}

}  // namespace

class Engine::Impl {
 public:
  Impl(StepRunner& runner, const TokenText& text, EngineOptions options)
      : runner_(runner),
        info_(runner.info()),
        text_(text),
        options_(std::move(options)),
        most_tokens_(0),
        scheduler_(info_, options_.reuse_prefixes),
        plans_(info_.depth) {
    most_tokens_ = scheduler_.most_tokens();
    samples_.reserve(info_.limits.outputs);
    finished_.reserve(info_.limits.slots);
    stats_.slots = info_.limits.slots;
    stats_.pools.resize(info_.groups.size());
    update_stats();
    thread_ = std::thread([this] { run(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(inbox_.mutex);
      inbox_.stopping = true;
    }
    inbox_.ready.notify_all();
    thread_.join();
  }

  Generation submit(EngineRequest request);
  std::uint32_t context() const { return std::min(info_.limits.context, most_tokens_); }
  std::vector<StepRecord> recent_steps(std::size_t most) const { return log_.recent(most); }

  EngineStats stats() const {
    const std::lock_guard lock(stats_mutex_);
    EngineStats stats = stats_;
    stats.steps = log_.totals();
    return stats;
  }

 private:
  void check(const EngineRequest& request) const;
  void run();
  bool collect();
  void publish_waiting();
  void drop_cancelled();
  void end_all();
  void step();
  void start(StepPlan& plan);
  bool prepare(StepPlan& plan);
  bool collect_results(const StepPlan& plan);
  void finish_oldest();
  void process(StepPlan& plan);
  void take_output(const StepPlan& plan, const StepPlan::Entry& entry);
  void take_logits(const Request& state, std::span<const float> logits);
  void take_hidden(const StepPlan::Entry& entry, std::span<const float> rows, std::size_t width);
  TokenId draw_held(State& state, std::span<const float> logits);
  void take_token(const Request& state, TokenId token);
  std::shared_ptr<const TokenTrie> trie();
  void record(const StepPlan& plan);
  void finish(const Request& state, DoneReason reason);
  void fail(const Request& state, ErrorKind kind, const std::string& message);
  void fail_step(const StepPlan& plan, const std::exception_ptr& failure);
  void unstick();
  void update_stats();

  StepRunner& runner_;
  const RunnerInfo info_;
  const TokenText& text_;
  const EngineOptions options_;
  std::uint32_t most_tokens_;
  EngineInbox inbox_;
  std::atomic<std::uint64_t> next_order_{1};
  std::once_flag trie_once_;
  std::shared_ptr<const TokenTrie> trie_;  // made for the first request that needs it

  // The engine's thread only.
  Scheduler scheduler_;
  // A ring: the oldest of the `in_flight_` steps that run is plans_[oldest_].
  std::vector<StepPlan> plans_;
  std::uint32_t oldest_ = 0, in_flight_ = 0;
  std::vector<std::int32_t> samples_;       // of the step whose results are being processed
  std::span<const float> logits_, hidden_;  // likewise, where it brought any: valid until the next step
  HostDraw host_draw_;
  std::vector<Request> finished_;
  EngineClock::time_point last_results_;
  std::int64_t device_ns_ = 0;
  double step_seconds_ = 0;

  StepLog log_;
  mutable std::mutex stats_mutex_;
  EngineStats stats_;
  std::thread thread_;
};

// ---- any thread ----

void Engine::Impl::check(const EngineRequest& r) const {
  if (r.prompt.empty()) throw_error(ErrorKind::bad_input, "the prompt has no tokens");
  for (const TokenId id : r.prompt)
    if (id < 0 || static_cast<std::uint32_t>(id) >= info_.vocab_size)
      throw_error(ErrorKind::bad_input, "the prompt holds token {}, but the vocabulary ends at {}", id,
                  info_.vocab_size - 1);
  if (r.context > info_.limits.context)
    throw TooLong(
        fmt::format("\"num_ctx\" is {}, but the model's context is {}", r.context, info_.limits.context));
  const std::uint32_t most = r.context > 0 ? std::min(r.context, context()) : context();
  if (r.prompt.size() >= most)
    throw TooLong(fmt::format(
        "the prompt has {} tokens, but the context holds {} with the answer: shorten it or use a larger "
        "context",
        r.prompt.size(), most));
  for (const TokenBias& b : r.biases)
    if (b.token < 0 || static_cast<std::uint32_t>(b.token) >= info_.vocab_size)
      throw_error(ErrorKind::bad_input, "\"logit_bias\" names token {}, but the vocabulary ends at {}",
                  b.token, info_.vocab_size - 1);
  if (r.logprobs > static_cast<std::int32_t>(kMostChances))
    throw_error(ErrorKind::bad_input, "\"top_logprobs\" may be {} at most", kMostChances);
  steelyard::check(static_cast<const AnswerOptions&>(r));
}

Generation Engine::Impl::submit(EngineRequest request) {
  check(request);
  auto state = std::make_shared<State>();
  state->submitted = EngineClock::now();
  state->tokens = std::move(request.prompt);
  state->prompt_tokens = static_cast<std::uint32_t>(state->tokens.size());
  state->sampling = request.sampling;
  if (request.random_seed) {
    std::random_device random;
    state->sampling.seed = random() >> 1;  // exact in every JSON reader
  }
  const std::uint32_t most = request.context > 0 ? std::min(request.context, context()) : context();
  state->max_tokens = most;
  if (request.num_predict >= 0)
    state->max_tokens = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(most, std::uint64_t{state->prompt_tokens} + request.num_predict));
  if (request.pooling != Pooling::none) {
    state->max_tokens = state->prompt_tokens + 1;
    state->want = Want::hidden;
    state->every_row = request.pooling == Pooling::mean;
  } else if (!request.biases.empty() || request.logprobs >= 0 || request.grammar) {
    state->want = Want::logits;
    if (request.grammar)
      state->constraint = std::make_unique<TokenConstraint>(request.grammar, trie(), request.grammar_after);
  }
  state->tokens.reserve(std::min<std::size_t>(state->max_tokens, state->prompt_tokens + 4096));
  state->stops = StopMatcher(request.stop);
  state->request = std::move(request);

  Generation generation;
  generation.state_ = state;
  {
    const std::lock_guard lock(inbox_.mutex);
    if (inbox_.stopping) throw_error(ErrorKind::cancelled, "the model is being unloaded");
    if (inbox_.waiting + inbox_.arrivals.size() >= options_.max_queue)
      throw_error(ErrorKind::busy, "{} requests are waiting already: try again later", options_.max_queue);
    state->order = next_order_++;
    inbox_.arrivals.push_back(std::move(state));
  }
  inbox_.ready.notify_all();
  return generation;
}

std::shared_ptr<const TokenTrie> Engine::Impl::trie() {
  std::call_once(trie_once_, [&] {
    trie_ = std::make_shared<const TokenTrie>(
        info_.vocab_size, [&](TokenId id) { return text_.piece(id, false); },
        [&](TokenId id) { return text_.is_end(id); });
  });
  return trie_;
}

// ---- the engine's thread ----

void Engine::Impl::run() {
  while (collect()) {
    drop_cancelled();
    if (!scheduler_.idle() || in_flight_ > 0) step();
    update_stats();
  }
  end_all();
}

// Takes what arrived; sleeps when there is nothing to do. False: the end.
bool Engine::Impl::collect() {
  std::unique_lock lock(inbox_.mutex);
  if (scheduler_.idle() && in_flight_ == 0)
    inbox_.ready.wait(lock, [&] { return inbox_.stopping || !inbox_.arrivals.empty(); });
  if (inbox_.stopping) return false;
  for (auto& state : inbox_.arrivals) scheduler_.add(std::move(state));
  inbox_.arrivals.clear();
  inbox_.waiting = scheduler_.waiting();
  return true;
}

void Engine::Impl::publish_waiting() {
  const std::lock_guard lock(inbox_.mutex);
  inbox_.waiting = scheduler_.waiting();
}

void Engine::Impl::drop_cancelled() {
  finished_.clear();
  const auto collect_ended = [&](const Request& state) {
    if (state->cancelled || state->max_tokens <= state->prompt_tokens) finished_.push_back(state);
  };
  for (const auto& sequence : scheduler_.waiting_sequences()) collect_ended(sequence);
  for (const auto& sequence : scheduler_.active_sequences()) collect_ended(sequence);
  for (const auto& state : finished_)
    finish(state, state->cancelled ? DoneReason::cancelled : DoneReason::length);
  finished_.clear();
}

void Engine::Impl::end_all() {
  for (; in_flight_ > 0; --in_flight_, oldest_ = (oldest_ + 1) % info_.depth)
    collect_results(plans_[oldest_]);
  std::vector<Request> all;
  {
    const std::lock_guard lock(inbox_.mutex);
    all.swap(inbox_.arrivals);
  }
  for (const auto& sequence : scheduler_.active_sequences()) all.push_back(sequence);
  for (const auto& sequence : scheduler_.waiting_sequences()) all.push_back(sequence);
  for (const auto& state : all) finish(state, DoneReason::cancelled);
}

// While a step runs the next is planned and submitted, so the device never waits for the host: its decode
// rows take the last sample on the device, and a row of an answer that turns out to have ended is thrown
// away. Only then are the oldest step's results read.
void Engine::Impl::step() {
  while (in_flight_ > 0 && plans_[(oldest_ + in_flight_ - 1) % info_.depth].brings_values) finish_oldest();
  StepPlan& next = plans_[(oldest_ + in_flight_) % info_.depth];
  next.begin = EngineClock::now();
  scheduler_.plan(next);
  if (next.empty() && next.prepares()) {
    // Somebody joined but has no row yet. What they need is done now; it may set pages free for the others.
    prepare(next);
    scheduler_.plan(next, false);
  }
  publish_waiting();
  if (next.empty() && in_flight_ == 0) return unstick();
  const bool more = !next.empty();
  if (more) start(next);
  if (in_flight_ == info_.depth || !more) finish_oldest();
}

// A failed step fails its requests; the rows that a step after it has for them count for nothing.
void Engine::Impl::finish_oldest() {
  StepPlan& plan = plans_[oldest_];
  oldest_ = (oldest_ + 1) % info_.depth;
  --in_flight_;
  if (collect_results(plan)) process(plan);
}

void Engine::Impl::start(StepPlan& plan) {
  const auto now = EngineClock::now();
  for (const auto& entry : plan.entries) {
    State& state = *entry.sequence;
    if (std::exchange(state.started, true)) continue;
    state.first_step = now;
    state.tell_prompt(state.cached_tokens);
  }
  if (!prepare(plan)) return;
  try {
    runner_.submit(plan.batch());
    ++in_flight_;
  } catch (...) {
    fail_step(plan, std::current_exception());
  }
}

// Resets and copies; false when the device failed, and the step's requests with it.
bool Engine::Impl::prepare(StepPlan& plan) {
  bool done = true;
  try {
    for (const auto slot : plan.resets) runner_.reset_slot(slot);
    for (const auto& copy : plan.copies) runner_.copy_pages(copy.group, {&copy.from, 1}, {&copy.to, 1});
  } catch (...) {
    fail_step(plan, std::current_exception());
    done = false;
  }
  scheduler_.copied(plan);
  plan.resets.clear();
  plan.copies.clear();
  return done;
}

// Waits for the step's samples; false when it failed, and its requests with it.
bool Engine::Impl::collect_results(const StepPlan& plan) {
  try {
    const StepResult& result = runner_.wait();
    if (result.tokens.size() < plan.shape.outputs)
      throw_error(ErrorKind::internal, "a step gave {} results instead of {}", result.tokens.size(),
                  plan.shape.outputs);
    samples_.assign(result.tokens.begin(), result.tokens.end());
    logits_ = result.logits;
    hidden_ = result.hidden;
    device_ns_ = result.nanoseconds;
  } catch (...) {
    fail_step(plan, std::current_exception());
    return false;
  }
  // A step that was submitted while another ran began when that one ended.
  const auto begin = std::max(plan.begin, last_results_);
  last_results_ = EngineClock::now();
  step_seconds_ = std::chrono::duration<double>(last_results_ - begin).count();
  return true;
}

void Engine::Impl::process(StepPlan& plan) {
  record(plan);
  for (const auto& entry : plan.entries) {
    scheduler_.confirm(entry);
    const State& state = *entry.sequence;
    if (!entry.decode && state.phase != Sequence::Phase::finished) state.tell_prompt(state.confirmed);
  }
  for (const auto& entry : plan.entries)
    if (entry.output >= 0 && entry.sequence->phase != Sequence::Phase::finished) take_output(plan, entry);
}

void Engine::Impl::take_output(const StepPlan& plan, const StepPlan::Entry& entry) {
  const Request& state = entry.sequence;
  const auto first = static_cast<std::size_t>(entry.output);
  if (state->want == Want::sample) return take_token(state, samples_[first]);
  if (state->want == Want::logits) {
    if (logits_.size() < (first + 1) * info_.vocab_size)
      return fail(state, ErrorKind::internal, "a step brought no logits");
    return take_logits(state, logits_.subspan(first * info_.vocab_size, info_.vocab_size));
  }
  const std::size_t width = hidden_.size() / plan.shape.outputs, rows = state->every_row ? entry.rows : 1;
  if (width == 0) return fail(state, ErrorKind::internal, "a step brought no hidden states");
  take_hidden(entry, hidden_.subspan(first * width, rows * width), width);
}

void Engine::Impl::take_logits(const Request& state, std::span<const float> logits) {
  const EngineRequest& r = state->request;
  TokenId token = 0;
  try {
    token = state->constraint ? draw_held(*state, logits)
                              : host_draw_.draw(logits, state->sampling, r.biases, state->tokens);
  } catch (...) {
    const auto [kind, message] = reason_of(std::current_exception());
    return fail(state, kind, message);
  }
  if (token >= 0 && r.logprobs >= 0 && !text_.is_end(token))
    state->tell_chances(chances_of(logits, token, static_cast<std::uint32_t>(r.logprobs)));
  take_token(state, token);
}

// A token that the grammar allows, and after which the tokens that are left suffice to end the answer.
TokenId Engine::Impl::draw_held(State& state, std::span<const float> logits) {
  TokenConstraint& held = *state.constraint;
  const auto draw = [&](const std::uint32_t* mask) {
    if (!mask)
      throw_error(ErrorKind::bad_input,
                  "no token of the model's vocabulary can go on as the grammar demands");
    return host_draw_.draw(logits, state.sampling, state.request.biases, state.tokens, mask);
  };
  TokenId token = draw(held.mask());
  const auto left = state.max_tokens - static_cast<std::uint32_t>(state.tokens.size()) - 1;
  if (token >= 0 && held.bytes_left_after(token) > left) {
    token = draw(held.mask_within(left));
    state.squeezed = true;
  }
  if (token >= 0) held.accept(token, text_.piece(token, state.request.control_text));
  return token;
}

// Sums rows up; a sequence that had to begin anew begins its sum anew.
void Engine::Impl::take_hidden(const StepPlan::Entry& entry, std::span<const float> rows, std::size_t width) {
  State& s = *entry.sequence;
  if (!s.every_row || s.confirmed == entry.rows) s.embedding.assign(width, 0.0f);
  for (std::size_t i = 0; i < rows.size(); ++i) s.embedding[i % width] += rows[i];
  if (s.confirmed < s.prompt_tokens) return;
  if (s.every_row)
    for (float& x : s.embedding) x /= static_cast<float>(s.prompt_tokens);
  s.last_token = last_results_;
  finish(entry.sequence, DoneReason::stop);
}

void Engine::Impl::record(const StepPlan& plan) {
  StepRecord record{.device_ns = device_ns_};
  record.host_ns = static_cast<std::int64_t>(step_seconds_ * 1e9);
  record.start_ns = since_epoch_ns(last_results_) - record.host_ns;
  record.prefill_rows = plan.prefill_rows;
  record.decode_rows = plan.decode_rows;
  record.sequences = static_cast<std::uint32_t>(plan.entries.size());
  record.waiting = scheduler_.waiting();
  if (options_.step_limit) record.limit_seconds = options_.step_limit(plan.shape);
  log_.record(record);
  for (const auto& entry : plan.entries)
    if (!entry.decode) entry.sequence->prompt_read += entry.rows;
  if (record.limit_seconds <= 0) return;
  for (const auto& entry : plan.entries) {
    State& state = *entry.sequence;
    state.limit_seconds[entry.decode] += record.limit_seconds;
    state.known_seconds[entry.decode] += step_seconds_;
    state.last_shape[entry.decode] = plan.shape;
  }
}

void Engine::Impl::take_token(const Request& state, TokenId token) {
  if (token == kNoNumber)
    return fail(
        state, ErrorKind::internal,
        "the model's output is no number (NaN or infinite): its file is damaged, or its values outgrow "
        "the fast arithmetic; fetch the file again, or try --mode exact");
  if (token < 0 || static_cast<std::uint32_t>(token) >= info_.vocab_size)
    return fail(state, ErrorKind::internal, fmt::format("a step sampled token {}", token));
  scheduler_.accept(*state, token);
  state->last_token = last_results_;
  if (state->generated() == 1) {
    state->first_token = last_results_;
    state->first_token_seconds = step_seconds_;
  }
  const DoneReason whole = state->squeezed ? DoneReason::length : DoneReason::stop;
  if (text_.is_end(token)) return finish(state, whole);
  if (!state->push(text_.piece(token, state->request.control_text))) return finish(state, DoneReason::stop);
  if (state->constraint && state->constraint->ended()) return finish(state, whole);
  if (state->tokens.size() >= state->max_tokens) finish(state, DoneReason::length);
}

void Engine::Impl::finish(const Request& state, DoneReason reason) {
  scheduler_.finish(state);
  {
    const std::lock_guard lock(stats_mutex_);
    ++stats_.finished;
    stats_.prompt_tokens += state->prompt_tokens;
    stats_.cached_tokens += state->cached_tokens;
    stats_.generated_tokens += state->generated();
  }
  state->end(reason);
  const Answer& answer = state->answer;
  for (const auto& [beat, shape] : {std::pair(answer.prompt_beat, state->last_shape[0]),
                                    std::pair(answer.generation_beat, state->last_shape[1])})
    if (beat > 1 && options_.limit_beaten) options_.limit_beaten(shape, beat);
}

void Engine::Impl::fail(const Request& state, ErrorKind kind, const std::string& message) {
  scheduler_.finish(state, true);
  {
    const std::lock_guard lock(stats_mutex_);
    ++stats_.failed;
  }
  state->fail(kind, message);
}

void Engine::Impl::fail_step(const StepPlan& plan, const std::exception_ptr& failure) {
  const auto [kind, message] = reason_of(failure);
  for (const auto& entry : plan.entries)
    if (entry.sequence->phase != Sequence::Phase::finished) fail(entry.sequence, kind, message);
}

// Nothing can run: the oldest sequence alone fills every page.
void Engine::Impl::unstick() {
  if (scheduler_.active() == 0) return;
  const auto state = scheduler_.active_sequences().front();
  if (state->generated() > 0) return finish(state, DoneReason::length);
  fail(state, ErrorKind::no_memory,
       fmt::format("a prompt of {} tokens needs more KV pages than there are", state->prompt_tokens));
}

void Engine::Impl::update_stats() {
  const std::lock_guard lock(stats_mutex_);
  stats_.waiting = scheduler_.waiting();
  stats_.active = scheduler_.active();
  stats_.preemptions = scheduler_.preemptions();
  for (std::uint32_t g = 0; g < stats_.pools.size(); ++g) stats_.pools[g] = scheduler_.pool(g).use();
}

// ----

Engine::Engine(StepRunner& runner, const TokenText& text, EngineOptions options)
    : impl_(std::make_unique<Impl>(runner, text, std::move(options))) {}
Engine::~Engine() = default;
Generation Engine::submit(EngineRequest request) { return impl_->submit(std::move(request)); }
std::uint32_t Engine::context() const { return impl_->context(); }
EngineStats Engine::stats() const { return impl_->stats(); }
std::vector<StepRecord> Engine::recent_steps(std::size_t most) const { return impl_->recent_steps(most); }

}  // namespace steelyard
