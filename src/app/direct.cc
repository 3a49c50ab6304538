#include "app/direct.h"

#include <vector>

#include "app/progress.h"
#include "plan/plan.h"

namespace steelyard {

DirectModel::DirectModel(PreparedModel prepared, bool quiet) : prepared_(std::move(prepared)) {
  Progress progress("loading " + prepared_.path.filename().string(), quiet);
  decoder_ = Decoder::load(prepared_.file, placed_parts(prepared_), prepared_.plan,
                           [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
  progress.finish();
  const MemoryPlan& plan = prepared_.plan;
  std::vector<std::uint32_t> pages;
  for (const GroupPlan& group : plan.groups) pages.push_back(group.pages_per_sequence);
  tables_.emplace(pages, plan.limits.slots, most_pages(plan.limits, plan.page_tokens));
}

Chunk DirectModel::chunk(std::uint32_t slot, std::uint32_t first_position,
                         std::span<const std::int32_t> tokens) const {
  return {.slot = slot,
          .first_position = static_cast<std::int32_t>(first_position),
          .tokens = tokens,
          .block_tables = tables_->of(slot),
          .sampling = {.temperature = 0}};
}

const StepResult& DirectModel::step(std::span<const Chunk> chunks) {
  finish();
  decoder_->submit({chunks});
  return decoder_->wait();
}

void DirectModel::push(std::span<const Chunk> chunks) {
  if (in_flight_ == decoder_->info().depth) {
    decoder_->wait();
    --in_flight_;
  }
  decoder_->submit({chunks});
  ++in_flight_;
}

void DirectModel::finish() {
  for (; in_flight_ > 0; --in_flight_) decoder_->wait();
}

}  // namespace steelyard
