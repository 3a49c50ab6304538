// The steps of a bench's cases, timed.
#pragma once

#include <cstdint>
#include <vector>

#include "app/bench_case.h"
#include "app/direct.h"

namespace steelyard {

// Runs cases on one loaded model, which must have their context and streams. Tokens are random but the same
// in every run.
class BenchRuns {
 public:
  explicit BenchRuns(DirectModel& model);

  // Tokens a second, of all streams together, of so many runs after one to warm up: ascending.
  std::vector<double> rates(const BenchCase& c, std::uint32_t repeat);

 private:
  void once(const BenchCase& c);
  void prefill(std::uint32_t slot, std::uint32_t first, std::uint32_t count);
  void generate(const BenchCase& c);

  DirectModel& model_;
  std::vector<std::int32_t> tokens_;
};

}  // namespace steelyard
