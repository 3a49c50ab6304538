#include "device/cuda/host/op_timer.h"

namespace steelyard::cuda {

void OpTimer::mark(std::size_t op, CuStream stream) {
  while (events_.size() <= op) events_.push_back(std::make_unique<Event>(gpu_, true));
  events_[op]->record(stream);
}

void OpTimer::read(std::size_t skip, std::vector<OpTime>& times) const {
  for (std::size_t i = 0; i + 1 < events_.size(); ++i) {
    if (i == skip) continue;
    float milliseconds = 0;
    gpu_.check(gpu_.driver().event_elapsed(&milliseconds, events_[i]->get(), events_[i + 1]->get()),
               "timing an op");
    times.push_back({static_cast<std::uint32_t>(i), static_cast<std::int64_t>(milliseconds * 1e6)});
  }
}

}  // namespace steelyard::cuda
