// Steps of a model without the engine: the sequences' pages are laid out once, and whoever measures decides
// what each step holds. For eval and bench. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "app/output.h"
#include "decoder/batch.h"
#include "decoder/decoder.h"
#include "device/page_tables.h"
#include "device/step.h"
#include "device/target.h"
#include "engine/loaded_model.h"
#include "program/program.h"

namespace steelyard {

class DirectModel {
 public:
  // Loads what was prepared; `quiet`: without a progress bar.
  DirectModel(PreparedModel prepared, bool quiet);

  const PreparedModel& prepared() const { return prepared_; }
  Decoder& decoder() { return *decoder_; }
  const Program& program() const { return prepared_.forward.program; }
  const StepLimits& limits() const { return prepared_.plan.limits; }
  std::uint32_t stages() const { return decoder_->info().stages; }

  // A chunk of the sequence in `slot`; its tokens must stay until the step is done.
  Chunk chunk(std::uint32_t slot, std::uint32_t first_position, std::span<const std::int32_t> tokens) const;
  const StepResult& step(std::span<const Chunk> chunks);
  // Steps whose results nobody reads: as many in flight as the device allows, as the engine has them.
  void push(std::span<const Chunk> chunks);
  void finish();

 private:
  PreparedModel prepared_;
  std::unique_ptr<Decoder> decoder_;
  std::uint32_t in_flight_ = 0;
  std::optional<PageTables> tables_;  // of the whole context
};

}  // namespace steelyard
