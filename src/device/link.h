// How parts of one model, each on a device of its own, hand each other rows and tokens: boxes in host memory
// that every device of this machine reaches (page-locked where one of them isn't the host), each with a count
// of the steps that are in it. Who needs a step's rows waits for the count; nobody else is asked. So parts
// need no common clock, no events and no thread between them.
//
// A box holds the rows of as many steps as may be in flight, in turn: a place is written again only when the
// step that used it was waited for, and so read by everybody.
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

// How far something was written: one more than the number of the last step that is complete. Plain memory
// that a GPU's queue can wait for and write too.
using StepCount = std::atomic<std::uint64_t>;
static_assert(sizeof(StepCount) == 8 && StepCount::is_always_lock_free);
// As a count: nothing more comes, and what was read is worthless. More than any step, also for a GPU, which
// compares the difference as a signed number.
inline constexpr std::uint64_t kNoMoreSteps = std::uint64_t{1} << 62;

// Rows of one link. A view; who holds it decides who sends and who receives.
struct LinkBox {
  StepCount* sent = nullptr;
  float* rows = nullptr;  // [turns][most rows][width]
  std::uint64_t turn_floats = 0;
  std::uint32_t turns = 1;
  float* of_step(std::uint64_t number) const { return rows + number % turns * turn_floats; }
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

  const std::vector<LinkBox>& boxes() const { return boxes_; }  // by LinkId
  const TokenBox& tokens() const { return tokens_; }
  // A part is gone: whoever waits for it goes on at once, with worthless rows. Parts that live write their
  // counts over this, in order, and so let those after them go on too; one that gives a step up on the host
  // writes kNoMoreSteps.
  void abandon();

 private:
  std::unique_ptr<Arena> memory_;
  std::vector<LinkBox> boxes_;
  TokenBox tokens_;
};

// The box that a part gives rows to, or takes them from; nullptr: it ends, or begins, the model. Throws
// Error(internal) when `bound` aren't the program's links.
const LinkBox* box_of(const Program& program, const std::vector<LinkBox>& bound, bool sends);

// Waits, on the host, until `count` has reached `steps`. False: it never will (kNoMoreSteps).
bool wait_for(const StepCount& count, std::uint64_t steps);

}  // namespace steelyard
