#include "device/cuda/host/step_image.h"

#include <cstring>

#include "program/program.h"

namespace steelyard::cuda {

StepImage::StepImage(Gpu& gpu, const Program& program, const Workspace& space, std::uint64_t bytes)
    : gpu_(gpu), program_(program), space_(space), memory_(gpu, bytes) {}

void StepImage::write(const StepBlock& b, std::uint32_t number) {
  std::byte* image = memory_.data();
  StepHeader header{};
  header.n_rows = static_cast<std::uint32_t>(b.tokens.size());
  header.n_sequences = static_cast<std::uint32_t>(b.sequences.size());
  header.n_outputs = static_cast<std::uint32_t>(b.outputs.size());
  header.table_stride = b.pages_per_sequence;
  header.step = number;
  header.number_low = static_cast<std::uint32_t>(b.number);
  header.number_high = static_cast<std::uint32_t>(b.number >> 32);
  std::memcpy(image, &header, sizeof header);
  std::memcpy(image + space_.tokens, b.tokens.data(), b.tokens.size_bytes());
  std::memcpy(image + space_.positions, b.positions.data(), b.positions.size_bytes());
  std::memcpy(image + space_.row_sequence, b.row_sequence.data(), b.row_sequence.size_bytes());
  static_assert(sizeof(DeviceSequence) == sizeof(StepSequence));
  std::memcpy(image + space_.sequences, b.sequences.data(), b.sequences.size_bytes());
  const std::uint64_t tables =
      b.sequences.size() * program_.groups.size() * b.pages_per_sequence * sizeof(std::int32_t);
  std::memcpy(image + space_.tables, b.block_tables.data(), tables);
  used_ = space_.tables + tables;
  write_outputs(b);
}

static_assert(static_cast<std::uint32_t>(Want::sample) == kWantSample);

void StepImage::write_outputs(const StepBlock& b) {
  auto* out = reinterpret_cast<DeviceOutput*>(memory_.data() + space_.outputs);
  masks_ = 0;
  for (const StepOutput& o : b.outputs) {
    const SamplingParams& p = o.sampling;
    DeviceOutput d{o.row,
                   o.sequence,
                   static_cast<std::uint32_t>(o.want),
                   -1,
                   p.temperature,
                   p.top_p,
                   p.min_p,
                   p.typical_p,
                   p.repeat_penalty,
                   p.presence_penalty,
                   p.frequency_penalty,
                   p.top_k,
                   p.repeat_last_n,
                   static_cast<std::uint32_t>(p.seed),
                   static_cast<std::uint32_t>(p.seed >> 32),
                   static_cast<std::uint32_t>(b.positions[o.row])};
    if (o.mask) {
      d.mask = static_cast<std::int32_t>(masks_++);
      std::memcpy(memory_.data() + space_.step_bytes + d.mask * mask_bytes(), o.mask, mask_bytes());
    }
    *out++ = d;
  }
}

void StepImage::enqueue_copy(DevicePtr workspace, CuStream stream) {
  const Driver& d = gpu_.driver();
  gpu_.check(d.copy_to_device(workspace + space_.step, memory_.data(), used_, stream),
             "copying the step block");
  if (masks_)
    gpu_.check(d.copy_to_device(workspace + space_.masks, memory_.data() + space_.step_bytes,
                                masks_ * mask_bytes(), stream),
               "copying the masks");
}

}  // namespace steelyard::cuda
