// Runs a small program with random weights on any device, and beside it the slow reference. Tests only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "device/device.h"
#include "device/page_tables.h"
#include "device/testing/reference.h"
#include "program/program.h"

namespace steelyard::testing {

// A program's weights: as blocks of their types, and as the floats those blocks stand for.
struct RandomWeights {
  std::vector<std::vector<std::byte>> raw;
  std::vector<std::vector<float>> floats;
};
RandomWeights random_weights(const Program& program, std::uint64_t seed);

// One chunk of a sequence (= its slot).
struct Feed {
  std::uint32_t sequence;
  std::vector<std::int32_t> tokens;
};

// A program on a device: arenas, bindings, executable; pages are dealt out to sequences in a shuffled order.
class Harness {
 public:
  Harness(Device& device, const Program& program, const RandomWeights& weights, const StepLimits& limits,
          Mode mode, std::uint64_t page_seed = 1);

  // One step with a chunk per feed. All rows want logits if `logits`, none otherwise. Returns
  // result[op][buffer] with the rows of all feeds, in order.
  using Trace = std::vector<std::map<BufferId, std::vector<std::vector<float>>>>;
  Trace step(const std::vector<Feed>& feeds, bool logits = true);
  // The same as the engine runs it: nothing looks between the ops. last() has the logits.
  void step_unwatched(const std::vector<Feed>& feeds);

  Executable& executable() { return *executable_; }
  const StepResult& last() const { return *last_; }

 private:
  void launch(const std::vector<Feed>& feeds, bool logits);

  Program program_;
  StepLimits limits_;
  std::uint32_t table_length_;
  std::unique_ptr<Arena> weights_, states_, workspace_;
  std::unique_ptr<Executable> executable_;
  std::optional<PageTables> tables_;
  std::vector<std::int32_t> lengths_;  // by slot
  const StepResult* last_ = nullptr;
  std::uint64_t step_number_ = 0;
};

// ‖a − b‖ / ‖b‖ over all elements of a buffer.
double relative_error(const std::vector<std::vector<float>>& a, const Matrix& b);

}  // namespace steelyard::testing
