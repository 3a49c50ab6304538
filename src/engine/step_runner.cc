#include "engine/step_runner.h"

#include "plan/plan.h"

namespace steelyard {
namespace {

class DecoderRunner final : public StepRunner {
 public:
  explicit DecoderRunner(Decoder& decoder) : decoder_(decoder) {
    const MemoryPlan& plan = decoder.plan();
    info_ = {.limits = plan.limits,
             .page_tokens = plan.page_tokens,
             .vocab_size = decoder.program().vocab_size,
             .asynchronous = decoder.executable().asynchronous()};
    for (std::size_t g = 0; g < plan.groups.size(); ++g)
      info_.groups.push_back({decoder.program().groups[g].window, plan.groups[g].pages});
  }
  const RunnerInfo& info() const override { return info_; }
  void submit(const Batch& batch) override { decoder_.submit(batch); }
  const StepResult& wait() override { return decoder_.wait(); }
  void reset_slot(std::uint32_t slot) override { decoder_.reset_slot(slot); }
  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                  std::span<const std::int32_t> to) override {
    decoder_.copy_pages(group, from, to);
  }

 private:
  Decoder& decoder_;
  RunnerInfo info_;
};

}  // namespace

std::unique_ptr<StepRunner> make_decoder_runner(Decoder& decoder) {
  return std::make_unique<DecoderRunner>(decoder);
}

}  // namespace steelyard
