#include "decoder/part.h"

#include "base/error.h"
#include "device/target.h"

namespace steelyard {

Part::Part(Forward forward, std::shared_ptr<Device> device, const MemoryPlan& plan, const DevicePlan& lines)
    : forward_(std::move(forward)),
      device_(std::move(device)),
      plan_(plan),
      weights_(device_->make_arena("the weights", lines.bytes(Purpose::weights))),
      states_(device_->make_arena("the KV state", lines.bytes(Purpose::state))),
      workspace_(device_->make_arena("the workspace", lines.bytes(Purpose::workspace))) {
  bindings_.workspace = workspace_->data();
  bindings_.workspace_bytes = workspace_->bytes();
  place_states();
}

// By WeightId; one more: their end.
std::vector<std::uint64_t> Part::weight_offsets() const {
  std::vector<std::uint64_t> offsets = {0};
  for (const WeightSpec& w : forward_.program.weights)
    offsets.push_back(offsets.back() + device_->target().weight_layout(w, plan_.mode).bytes);
  return offsets;
}

void Part::load_weights(const GgufFile& file, const LoadProgress& progress) {
  const Program& program = forward_.program;
  const std::vector<std::uint64_t> offsets = weight_offsets();
  if (offsets.back() != weights_->bytes())
    throw_error(ErrorKind::internal, "the weights are not those that were planned");
  std::vector<WeightLoad> loads;
  for (std::size_t i = 0; i < program.weights.size(); ++i) {
    bindings_.weights.push_back(weights_->data() + offsets[i]);
    loads.push_back({&program.weights[i], weight_bytes(file, program.weights[i], forward_.sources[i]),
                     offsets[i], released_from(file, i), weight_stride(forward_.sources[i])});
  }
  device_->load_weights(loads, plan_.mode, *weights_, progress);
  // What is left: pages that pieces share, and everything where the device told of none.
  for (const WeightSource& source : forward_.sources) file.release(*source.tensor);
}

// Gives the file's pages back as a weight is placed.
std::function<void(std::uint64_t, std::uint64_t)> Part::released_from(const GgufFile& file,
                                                                      std::size_t weight) const {
  const GgufTensor& tensor = *forward_.sources[weight].tensor;
  const std::uint64_t first = weight_begin(forward_.program.weights[weight], forward_.sources[weight]);
  return [&file, &tensor, first](std::uint64_t begin, std::uint64_t end) {
    file.release(tensor, first + begin, end - begin);
  };
}

std::uint64_t Part::file_bytes() const {
  std::uint64_t bytes = 0;
  for (const WeightSpec& w : forward_.program.weights) bytes += w.file_bytes();
  return bytes;
}

void Part::place_states() {
  std::uint64_t offset = 0;
  for (const auto& g : plan_.groups) bindings_.pages.push_back(g.pages);
  for (const auto& s : forward_.program.states) {
    bindings_.states.push_back(states_->data() + offset);
    offset += device_->target().state_page_bytes(s) * plan_.groups[s.group].pages;
  }
  if (offset != states_->bytes())
    throw_error(ErrorKind::internal, "the states are not those that were planned");
}

void Part::compile(const Links* links) {
  if (links) bindings_.links = links->boxes(), bindings_.tokens = links->tokens();
  count_driver_memory(
      [&] { executable_ = device_->compile(forward_.program, bindings_, plan_.limits, plan_.mode); });
}

void Part::count_driver_memory(const std::function<void()>& work) {
  executable_bytes_ += device_->taken_by(work);
}

std::uint64_t Part::held_on_host() const {
  const std::uint64_t arenas = weights_->bytes() + states_->bytes() + workspace_->bytes();
  return device_->target().is_host() ? arenas : executable_->staging_bytes();
}

std::uint64_t Part::actual(const PlanLine& line) const {
  switch (line.purpose) {
    case Purpose::weights:
      return weights_->held_bytes();
    case Purpose::state:
      return states_->held_bytes();
    case Purpose::workspace:
      return workspace_->held_bytes();
    case Purpose::executables:
      return executable_bytes_;
    case Purpose::context:
      return device_->info().context_bytes;
    case Purpose::staging:
    case Purpose::links:
    case Purpose::process:
    case Purpose::other_models:
    case Purpose::reserve:
      return line.bytes;
  }
  return 0;
}

}  // namespace steelyard
