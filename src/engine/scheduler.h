// Which rows run in the next step. Continuous batching: decode tokens first, then prompt chunks of several
// sequences within the step's rows; requests are admitted in order of arrival when a slot is free and pages
// suffice for their prompt. When pages run out the youngest sequence gives its own back and is computed again
// later, so the oldest always goes on. Not thread-safe, no clocks, no callbacks: the same calls give the same
// plans.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "decoder/batch.h"
#include "decoder/step_runner.h"
#include "engine/generation.h"
#include "engine/page_pool.h"
#include "observe/ceilings.h"
#include "program/cost.h"
#include "text/vocabulary.h"

namespace steelyard {

using Request = std::shared_ptr<Generation::State>;  // a Sequence and the answer it grows

// One step's batch with the memory behind its views; block tables are views of the sequences' own, so it is
// submitted before anything else is asked of the scheduler but copied(). Used again and again; after the
// first few steps filling it allocates nothing.
struct StepPlan {
  struct Entry {
    Request sequence;
    std::uint32_t epoch;
    std::uint32_t rows;
    std::int32_t output;  // index into the results, of the first where every row has one; -1: none
    bool decode;
  };
  struct Copy {
    std::uint32_t group;
    std::int32_t from, to;
  };

  std::vector<Chunk> chunks;
  std::vector<Entry> entries;         // parallel to chunks
  std::vector<std::uint32_t> resets;  // slots to reset …
  std::vector<Copy> copies;           // … and pages to copy before the step
  StepShape shape;
  std::uint32_t prefill_rows = 0, decode_rows = 0;
  bool brings_values = false;  // logits or hidden states: to be read before the next step is submitted
  std::chrono::steady_clock::time_point begin;  // the engine's: when planning began

  bool empty() const { return chunks.empty(); }
  bool prepares() const { return !resets.empty() || !copies.empty(); }
  Batch batch() const { return {chunks}; }

 private:
  friend class Scheduler;
  std::vector<std::int32_t> tokens;
  std::vector<std::span<const std::int32_t>> tables;  // the sequences' own, [chunk][group]
};

class Scheduler {
 public:
  Scheduler(const RunnerInfo& info, bool reuse_prefixes);

  // Whether a sequence of so many tokens could ever run; pages are the limit where they are fewer than the
  // context.
  std::uint32_t most_tokens() const;

  void add(Request sequence);
  // Fills `plan` with the next step; empty when nothing can run. Even then it may have resets and copies to
  // do. admit_new: whether waiting sequences may join.
  void plan(StepPlan& plan, bool admit_new = true);
  // After the plan's copies were done on the device, or will never be.
  void copied(const StepPlan& plan);
  // The step of this plan has ended: its tokens' state is there. Call before accept().
  void confirm(const StepPlan::Entry& entry);
  // The sample of an entry whose sequence is still wanted.
  void accept(Sequence& sequence, TokenId token);
  // Gives back slot and pages; what was confirmed stays known for reuse unless `forget`.
  void finish(const Request& sequence, bool forget = false);

  std::uint32_t waiting() const { return static_cast<std::uint32_t>(waiting_.size()); }
  std::uint32_t active() const { return static_cast<std::uint32_t>(active_.size()); }
  bool idle() const { return waiting_.empty() && active_.empty(); }
  // Sequences in order of arrival.
  std::span<const Request> active_sequences() const { return active_; }
  const std::deque<Request>& waiting_sequences() const { return waiting_; }
  const PagePool& pool(std::uint32_t group) const { return pools_[group]; }
  std::uint64_t preemptions() const { return preemptions_; }

 private:
  struct Reuse {
    std::uint32_t pages = 0;    // whole ones
    std::uint32_t partial = 0;  // tokens of the next one
  };

  void admit(StepPlan& plan);
  bool admit_one(const Request& sequence, StepPlan& plan);
  Reuse find_reuse(const Sequence& sequence);
  std::uint32_t reuse_limit(const Sequence& sequence) const;
  void take_whole_pages(Sequence& sequence, const Reuse& reuse);
  void take_partial_pages(Sequence& sequence, const Reuse& reuse, StepPlan& plan);
  std::int32_t take_partial_page(std::uint32_t group, const Sequence& sequence, const Reuse& reuse,
                                 StepPlan& plan);
  bool pages_suffice(const Sequence& sequence) const;
  std::uint32_t pages_missing(const Sequence& sequence, std::uint32_t group) const;
  std::uint32_t first_key_page(std::uint32_t group, std::uint32_t position) const;

  void plan_oldest();
  void share_rows();
  void share_decode_rows(std::uint32_t& rows, std::uint32_t& outputs, std::uint32_t prefilling);
  void share_prefill_rows(std::uint32_t rows, std::uint32_t outputs, std::uint32_t prefilling);
  bool ensure_pages(Sequence& sequence);
  std::int32_t allocate_for(const Sequence& sequence, std::uint32_t group);
  bool preempt_younger_than(std::uint64_t order);
  void release_passed(Sequence& sequence);
  void release_pages(Sequence& sequence);
  void publish_full_pages(Sequence& sequence);
  void publish_tail(Sequence& sequence);
  void clear(StepPlan& plan) const;
  void write_chunk(const Request& sequence, StepPlan& plan);
  void deactivate(Sequence& sequence);

  RunnerInfo info_;
  bool reuse_prefixes_;
  std::uint32_t table_pages_;  // the most entries of a table
  std::vector<PagePool> pools_;
  std::deque<Request> waiting_;  // by order
  std::vector<Request> active_;  // by order
  std::vector<std::uint32_t> free_slots_;
  bool may_admit_ = true;          // something was freed or added since the last refusal
  std::uint32_t decode_turn_ = 0;  // where the decode pass starts when not all fit
  std::uint64_t preemptions_ = 0;
  // Scratch of find_reuse(): keys before page i, pages by [group][i].
  std::vector<PrefixKey> keys_;
  std::vector<std::vector<std::int32_t>> found_;
};

}  // namespace steelyard
