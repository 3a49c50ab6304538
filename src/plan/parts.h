// Memory and times of parts of one model, each worked out once: choosing asks for the same ones many times.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "plan/placement.h"
#include "program/cost.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard {

// "66.8", "233"; "–" for 0, which means not known.
std::string rate_text(double tokens_per_second);

// "embedding + layers 0–11 of 64: 12/65 on CPU".
std::string share_text(const Share& share, std::uint32_t layers, const std::string& device);

class PartMemory {
 public:
  explicit PartMemory(const PlacementInput& input);
  // `gpu_parts`: GPUs of the placement, whose page-locked memory lies on the host.
  DevicePlan plan(std::uint32_t device, const Share& share, std::uint32_t gpu_parts) const;
  std::uint64_t bytes(std::uint32_t device, const Share& share, std::uint32_t gpu_parts);
  // The largest end with which units from `begin` fit on every one of the devices, each a rank; `begin`: none
  // does.
  std::uint32_t reach(std::span<const std::uint32_t> devices, std::uint32_t begin, std::uint32_t gpu_parts);
  std::uint64_t staging() const;  // page-locked bytes of one GPU

 private:
  std::uint64_t host_links() const;

  using Key = std::tuple<bool, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>;
  const PlacementInput& in_;
  std::uint32_t units_, layers_;
  std::map<Key, std::uint64_t> bytes_;
};

// Seconds of the units of a stage on its devices, sums between ranks included.
class PartTimes {
 public:
  explicit PartTimes(const PlacementInput& input);
  // Of units [0, u), u = 0 … all.
  const std::vector<double>& until(std::span<const std::uint32_t> devices, const StepShape& shape,
                                   bool ideal = false);
  // The slowest link among a stage's devices, or between those of two.
  DeviceLink link_within(std::span<const std::uint32_t> devices) const;
  DeviceLink link_between(std::span<const std::uint32_t> from, std::span<const std::uint32_t> to) const;

 private:
  using Key = std::tuple<std::vector<std::uint32_t>, std::uint32_t, std::uint32_t, double, double, bool>;
  std::vector<double> seconds(std::span<const std::uint32_t> devices, const StepShape& shape, bool ideal);
  const Program& rank_program(std::uint32_t ranks);

  const PlacementInput& in_;
  std::vector<std::uint32_t> kind_;            // by device: the first that is like it
  std::map<std::uint32_t, Program> programs_;  // of rank 0, by ranks
  std::map<Key, std::vector<double>> until_;
};

// Steps of `rows` sequences, each a token after `depth`.
StepShape decode_shape(const PlacementInput& input, std::uint32_t rows);

Prediction predict(const PlacementInput& input, const Placement& placement, PartTimes& times);

}  // namespace steelyard
