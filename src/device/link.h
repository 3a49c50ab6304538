// How parts of one model, each on a device of its own, hand each other rows and tokens: boxes in host memory
// that every device of this machine reaches (page-locked where one of them isn't the host), each with a count
// of the steps that are in it. Who needs a step's rows waits for the count; nobody else is asked. So parts
// need no common clock, no events and no thread between them.
//
// A box holds the rows of as many steps as may be in flight, in turn: a place is written again only when the
// step that used it was waited for, and so read by everybody.
//
// Tensor ranks trade sums many times a step, always all of them in the same order. There two places in turn
// are enough: who has the others' rows of sum s + 1 knows that they have read those of sum s, since each
// reads before it writes again, and may write those of s + 2 over them. Each row has a count of its own, so
// that no part of a rank needs to wait for the rest of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "device/target.h"
#include "program/program.h"

namespace steelyard {

class Arena;
class Device;

inline constexpr std::uint32_t kChunkColumns = 4096;  // of a row of logits

// How far something was written: one more than the number of the last step that is complete. Plain memory
// that a GPU's queue can wait for and write too.
using StepCount = std::atomic<std::uint64_t>;
static_assert(sizeof(StepCount) == 8 && StepCount::is_always_lock_free);
// As a count: nothing more comes, and what was read is worthless. More than any step, also for a GPU, which
// compares the difference as a signed number.
inline constexpr std::uint64_t kNoMoreSteps = std::uint64_t{1} << 62;

// Rows of one link (LinkSpec). A view; who holds it decides who writes and who reads.
struct LinkBox {
  // One for rows of a stage; else [writers][most rows][chunks].
  StepCount* sent = nullptr;
  // rows    [turns][most rows][width]
  // sum     [turns][writers][most rows][width]
  // logits  [turns][most outputs][width]
  float* rows = nullptr;
  std::uint64_t turn_floats = 0, writer_floats = 0;
  std::uint32_t turns = 1;
  std::uint32_t writers = 1, most_rows = 0;
  std::uint32_t chunks = 1;  // of a row, each with a count: of logits, which are long
  std::uint32_t uses = 1;    // a step
  // Of sums in steps of one row, where all ranks can: [2][writers][width] words that hold a value with the
  // tag of what wrote it. Null: they can't.
  std::uint64_t* words = nullptr;

  // Counts of a sum go on from step to step: its number among all.
  std::uint64_t number_of(std::uint64_t step, std::uint32_t turn) const { return step * uses + turn; }
  float* of_step(std::uint64_t number) const { return rows + number % turns * turn_floats; }
  float* of_writer(std::uint64_t number, std::uint32_t writer) const {
    return of_step(number) + writer * writer_floats;
  }
  StepCount& sent_by(std::uint32_t writer, std::uint32_t row, std::uint32_t chunk = 0) const {
    return sent[(std::uint64_t{writer} * most_rows + row) * chunks + chunk];
  }
  std::uint64_t counts() const { return most_rows == 0 ? 1 : std::uint64_t{writers} * most_rows * chunks; }
};

// The last token sampled for each slot, by the part that samples. A slot's entry may be read once the step
// that sampled it is counted: until its next step there is no other.
struct TokenBox {
  StepCount* sampled = nullptr;  // null: one part has everything
  std::int32_t* last = nullptr;  // [slots]
};

// Owns the boxes of a model. Any thread.
class Links {
 public:
  // `links` as in every part's Program; the host's memory is locked by `device`.
  Links(Device& device, const std::vector<LinkSpec>& links, const StepLimits& limits);
  ~Links();
  Links(const Links&) = delete;
  Links& operator=(const Links&) = delete;

  // All ranks have kernels that trade sums of one row as words: boxes have places for them.
  void offer_words();
  const std::vector<LinkBox>& boxes() const { return boxes_; }  // by LinkId
  const TokenBox& tokens() const { return tokens_; }
  // A part is gone: whoever waits for it goes on at once, with worthless rows. Parts that live write their
  // counts over this, in order, and so let those after them go on too; one that gives a step up on the host
  // writes kNoMoreSteps.
  void abandon();

 private:
  std::unique_ptr<Arena> memory_;
  std::vector<std::uint64_t*> words_;  // by LinkId
  std::vector<LinkBox> boxes_;
  TokenBox tokens_;
};

// The box that a part gives rows to, or takes them from; nullptr: it ends, or begins, the model. Throws
// Error(internal) when `bound` aren't the program's links.
const LinkBox* box_of(const Program& program, const std::vector<LinkBox>& bound, bool sends);

// Waits, on the host, until `count` has reached `steps`. False: it never will (kNoMoreSteps).
bool wait_for(const StepCount& count, std::uint64_t steps);

}  // namespace steelyard
