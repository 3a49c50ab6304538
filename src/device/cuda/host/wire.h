// A Program as plain data for the plug-in's interface, and back.
#pragma once

#include <vector>

#include "device/cuda/host/abi.h"
#include "program/program.h"

namespace steelyard::cuda {

// Views into `program` and into itself; both outlive every use of view().
class WireProgram {
 public:
  explicit WireProgram(const Program& program);
  WireProgram(const WireProgram&) = delete;
  WireProgram& operator=(const WireProgram&) = delete;
  const abi::ProgramView& view() const { return view_; }

 private:
  std::vector<abi::Buffer> buffers_;
  std::vector<abi::Weight> weights_;
  std::vector<abi::Group> groups_;
  std::vector<abi::Operation> ops_;
  abi::ProgramView view_{};
};

abi::Weight to_wire(const WeightSpec& weight);
WeightSpec from_wire(const abi::Weight& weight);

// Throws Error(internal) when an op's kind is unknown or the program doesn't pass check().
Program from_wire(const abi::ProgramView& view);

}  // namespace steelyard::cuda
