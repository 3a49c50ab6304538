// For tests: a runner whose "state" is the tokens themselves, written to pages and read back through the
// block tables. A sample depends on every token that attention would see, so a lost, shared or stale page
// changes the answer; fake_answer() says what a request gives alone. Broken promises of a batch are gathered
// in `faults`. It does everything in wait(), in order.
#pragma once

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "decoder/batch.h"
#include "decoder/step_runner.h"
#include "device/step.h"
#include "engine/engine.h"
#include "text/vocabulary.h"

namespace steelyard {

inline constexpr TokenId kFakeEnd = 0;
inline constexpr std::int32_t kFakePoison = -77;

struct FakeHash {
  std::uint64_t value = 0x9e3779b97f4a7c15;
  void add(std::uint64_t x) { value = (value ^ x) * 0xff51afd7ed558ccd, value ^= value >> 29; }
};

// `seen` by group: the tokens that attention sees, in order. An end token comes with odds of 1 in 48.
inline TokenId fake_sample(const std::vector<std::vector<TokenId>>& seen, const std::vector<TokenId>& history,
                           const SamplingParams& p, std::int32_t position, std::uint32_t vocab) {
  FakeHash hash;
  for (const auto& group : seen) {
    hash.add(group.size());
    for (const TokenId id : group) hash.add(static_cast<std::uint64_t>(id));
  }
  if (p.repeat_penalty != 1.0f && p.repeat_last_n != 0) {
    const std::size_t n =
        p.repeat_last_n < 0 ? history.size() : std::min<std::size_t>(p.repeat_last_n, history.size());
    for (std::size_t i = history.size() - n; i < history.size(); ++i) hash.add(history[i]);
  }
  if (p.temperature > 0) hash.add(p.seed * 31 + static_cast<std::uint64_t>(position));
  if (hash.value % 48 == 0) return kFakeEnd;
  return static_cast<TokenId>(1 + (hash.value >> 8) % (vocab - 1));
}

// What the request's answer must be, whatever else runs: the ids, an end token included.
inline std::vector<TokenId> fake_answer(std::vector<TokenId> tokens, const SamplingParams& sampling,
                                        std::uint32_t most, const RunnerInfo& info) {
  std::vector<TokenId> answer;
  while (answer.size() < most && tokens.size() < info.limits.context) {
    std::vector<std::vector<TokenId>> seen;
    for (const auto& group : info.groups) {
      const std::size_t n = group.window ? std::min<std::size_t>(group.window, tokens.size()) : tokens.size();
      seen.emplace_back(tokens.end() - static_cast<std::ptrdiff_t>(n), tokens.end());
    }
    answer.push_back(
        fake_sample(seen, tokens, sampling, static_cast<std::int32_t>(tokens.size()) - 1, info.vocab_size));
    tokens.push_back(answer.back());
    if (answer.back() == kFakeEnd) break;
  }
  return answer;
}

class FakeRunner : public StepRunner {
 public:
  explicit FakeRunner(RunnerInfo info) : info_(std::move(info)) {
    for (const auto& group : info_.groups)
      pages_.emplace_back(std::size_t{group.pages} * info_.page_tokens, kFakePoison);
    history_.resize(info_.limits.slots);
    last_.resize(info_.limits.slots, kFakePoison);
  }

  std::vector<std::string> faults;
  std::uint64_t steps = 0, rows = 0, mixed_steps = 0;
  std::uint32_t most_in_flight = 0;
  std::chrono::microseconds step_time{0};
  std::uint64_t fail_step = 0;  // the step with this number throws in wait(); 0: none
  std::uint64_t fail_submit = 0;
  TokenId no_number_after = -99;  // after this token of a prompt the logits aren't numbers

  const RunnerInfo& info() const override { return info_; }

  void submit(const Batch& batch) override {
    if (in_flight_ == info_.depth) fault("submit while enough steps are in flight");
    if (++steps == fail_submit) throw std::runtime_error("the fake's submit failed");
    most_in_flight = std::max(most_in_flight, ++in_flight_);
    check(batch);
    queue_.push_back({true, [this, chunks = copied(batch), number = steps] { run(chunks, number); }});
  }

  const StepResult& wait() override {
    if (in_flight_ == 0) throw std::logic_error("wait without a step");
    --in_flight_;
    if (step_time.count() > 0) std::this_thread::sleep_for(step_time);
    for (bool step = false; !step;) {
      const auto call = std::move(queue_.front());
      queue_.pop_front();
      step = call.step;
      call.run();
    }
    result_ = {.tokens = samples_, .logits = logits_, .hidden = hidden_, .nanoseconds = 1000};
    return result_;
  }

  void reset_slot(std::uint32_t slot) override {
    in_order([this, slot] {
      history_.at(slot).clear();
      last_.at(slot) = kFakePoison;
    });
  }

  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                  std::span<const std::int32_t> to) override {
    for (std::size_t i = 0; i < from.size(); ++i) {
      check_page(group, from[i]);
      check_page(group, to[i]);
      in_order([this, group, source = from[i], target = to[i]] {
        auto& pages = pages_.at(group);
        const std::ptrdiff_t size = info_.page_tokens;
        std::copy_n(pages.begin() + source * size, size, pages.begin() + target * size);
      });
    }
  }

 private:
  struct Call {
    bool step;
    std::function<void()> run;
  };
  // The batch's memory is the caller's again when submit() returns.
  struct OwnChunk {
    Chunk chunk;
    std::vector<std::int32_t> tokens;
    std::vector<std::vector<std::int32_t>> tables;
  };
  static std::vector<OwnChunk> copied(const Batch& batch) {
    std::vector<OwnChunk> chunks;
    for (const Chunk& chunk : batch.chunks) {
      OwnChunk& own = chunks.emplace_back(OwnChunk{chunk, {chunk.tokens.begin(), chunk.tokens.end()}, {}});
      for (const auto& table : chunk.block_tables) own.tables.emplace_back(table.begin(), table.end());
      own.chunk.tokens = {};
      own.chunk.block_tables = {};
    }
    return chunks;
  }
  void in_order(std::function<void()> run) {
    if (queue_.empty()) return run();
    queue_.push_back({false, std::move(run)});
  }
  void run(const std::vector<OwnChunk>& chunks, std::uint64_t number) {
    if (number == fail_step) throw Error(ErrorKind::internal, "the fake device failed");
    samples_.clear();
    logits_.clear();
    hidden_.clear();
    for (const OwnChunk& own : chunks) run(own);
  }
  void fault(std::string what) {
    if (faults.size() < 20) faults.push_back(std::move(what));
  }
  void check_page(std::uint32_t group, std::int32_t page) {
    if (page < 0 || static_cast<std::uint32_t>(page) >= info_.groups[group].pages)
      throw Error(ErrorKind::internal, fmt::format("page {} of group {} does not exist", page, group));
  }

  void check(const Batch& batch) {
    std::set<std::uint32_t> slots;
    std::uint32_t n_rows = 0, n_outputs = 0, decodes = 0;
    for (const Chunk& chunk : batch.chunks) {
      n_rows += static_cast<std::uint32_t>(chunk.tokens.size());
      n_outputs += chunk.n_outputs;
      decodes += chunk.tokens.size() == 1;
      if (chunk.slot >= info_.limits.slots || !slots.insert(chunk.slot).second) fault("bad or shared slot");
      if (chunk.tokens.empty()) fault("empty chunk");
      if (chunk.block_tables.size() != info_.groups.size()) fault("wrong number of tables");
      const std::size_t end = chunk.first_position + chunk.tokens.size();
      if (end > info_.limits.context) fault("position beyond the context");
      for (const auto& table : chunk.block_tables)
        if (table.size() * info_.page_tokens < end) fault("table too short");
    }
    if (n_rows > info_.limits.rows) fault("too many rows");
    if (n_outputs > info_.limits.outputs) fault("too many outputs");
    if (decodes > 0 && decodes < batch.chunks.size()) ++mixed_steps;
    rows += n_rows;
    check_writes(batch);
  }

  // A page that a chunk writes is in nobody else's table.
  void check_writes(const Batch& batch) {
    for (std::uint32_t g = 0; g < info_.groups.size(); ++g) {
      std::map<std::int32_t, int> users;
      for (const Chunk& chunk : batch.chunks)
        for (const auto page : chunk.block_tables[g]) ++users[page];
      for (const Chunk& chunk : batch.chunks) {
        const std::uint32_t size = info_.page_tokens, first = chunk.first_position / size;
        const auto last = (chunk.first_position + chunk.tokens.size() - 1) / size;
        for (std::uint32_t p = first; p <= last; ++p) {
          const auto page = chunk.block_tables[g][p];
          if (page < 0) fault("writing to no page");
          if (users[page] != 1) fault("writing to a shared page");
        }
      }
    }
  }

  void run(const OwnChunk& own) {
    const Chunk& chunk = own.chunk;
    auto& history = history_[chunk.slot];
    for (std::size_t i = 0; i < own.tokens.size(); ++i) {
      const std::int32_t position = chunk.first_position + static_cast<std::int32_t>(i);
      TokenId id = own.tokens[i];
      if (id == kLastSample) id = last_[chunk.slot];
      if (id < 0 || static_cast<std::uint32_t>(id) >= info_.vocab_size) fault("bad token");
      history.push_back(id);
      for (std::uint32_t g = 0; g < info_.groups.size(); ++g) cell(g, own, position) = id;
      if (i + chunk.n_outputs >= own.tokens.size()) sample(own, position);
    }
  }

  std::int32_t& cell(std::uint32_t group, const OwnChunk& own, std::int32_t position) {
    const std::int32_t page = own.tables[group][position / info_.page_tokens];
    check_page(group, page);
    return pages_[group][std::size_t(page) * info_.page_tokens + position % info_.page_tokens];
  }

  void sample(const OwnChunk& own, std::int32_t position) {
    std::vector<std::vector<TokenId>> seen(info_.groups.size());
    for (std::uint32_t g = 0; g < info_.groups.size(); ++g) {
      const auto window = static_cast<std::int32_t>(info_.groups[g].window);
      for (std::int32_t p = window ? std::max(0, position - window + 1) : 0; p <= position; ++p) {
        seen[g].push_back(cell(g, own, p));
        if (seen[g].back() == kFakePoison) fault("reading a place that was never written");
      }
    }
    const Chunk& chunk = own.chunk;
    const bool no_number = own.tokens.size() > 1 && own.tokens.back() == no_number_after;
    last_[chunk.slot] = fake_sample(seen, history_[chunk.slot], chunk.sampling, position, info_.vocab_size);
    const TokenId token = last_[chunk.slot];
    if (chunk.want == Want::sample) {
      samples_.push_back(no_number ? kNoNumber : token);
    } else {
      samples_.push_back(-1);
      last_[chunk.slot] = kFakePoison;
    }
    // One token is certain; a hidden state tells its row's position and token.
    logits_.resize(samples_.size() * info_.vocab_size, 0.0f);
    logits_[(samples_.size() - 1) * info_.vocab_size + static_cast<std::size_t>(token)] = 50;
    hidden_.push_back(static_cast<float>(position));
    hidden_.push_back(static_cast<float>(token));
  }

  RunnerInfo info_;
  std::vector<std::vector<std::int32_t>> pages_;  // by group: [page][place]
  std::vector<std::vector<TokenId>> history_;     // by slot
  std::vector<TokenId> last_;
  std::deque<Call> queue_;
  std::uint32_t in_flight_ = 0;
  std::vector<std::int32_t> samples_;
  std::vector<float> logits_, hidden_;
  StepResult result_;
};

// A letter for every id but the end.
class FakeText : public TokenText {
 public:
  FakeText() {
    for (int id = 0; id < 256; ++id) {
      pieces_.push_back(id == kFakeEnd ? "" : std::string(1, static_cast<char>('a' + id % 26)));
    }
  }
  std::string_view piece(TokenId id, bool /*control*/ = false) const override {
    return pieces_[static_cast<std::size_t>(id) % 256];
  }
  bool is_end(TokenId id) const override { return id == kFakeEnd; }

 private:
  std::vector<std::string> pieces_;
};

}  // namespace steelyard
