#include "device/link.h"

#include <chrono>
#include <new>
#include <thread>

#include "base/error.h"
#include "device/carver.h"
#include "device/device.h"
#include "program/uses.h"

namespace steelyard {
namespace {

// Offsets of a model's boxes. A count has a cache line for itself: devices poll it.
struct Layout {
  std::vector<std::uint64_t> sent, rows;  // by LinkId
  std::uint64_t sampled = 0, last = 0;
  std::uint64_t bytes = 0;
};

std::uint64_t turn_floats(const LinkSpec& link, const StepLimits& limits) {
  return std::uint64_t{limits.rows} * link.width;
}

Layout lay_out(const std::vector<LinkSpec>& links, const StepLimits& limits) {
  Layout l;
  Carver carve(256);
  l.sampled = carve.take(sizeof(StepCount));
  l.last = carve.take(limits.slots * sizeof(std::int32_t));
  for (const LinkSpec& link : links) {
    l.sent.push_back(carve.take(sizeof(StepCount)));
    l.rows.push_back(carve.take(limits.in_flight * turn_floats(link, limits) * sizeof(float)));
  }
  l.bytes = carve.end();
  return l;
}

}  // namespace

std::uint64_t links_bytes(const std::vector<LinkSpec>& links, const StepLimits& limits) {
  return links.empty() ? 0 : lay_out(links, limits).bytes;
}

Links::Links(Device& device, const std::vector<LinkSpec>& links, const StepLimits& limits) {
  const Layout l = lay_out(links, limits);
  memory_ = device.make_host_arena("the links between its parts", l.bytes);
  const auto count = [&](std::uint64_t offset) { return new (memory_->data() + offset) StepCount(0); };
  tokens_ = {count(l.sampled), reinterpret_cast<std::int32_t*>(memory_->data() + l.last)};
  for (std::size_t i = 0; i < links.size(); ++i)
    boxes_.push_back({count(l.sent[i]), reinterpret_cast<float*>(memory_->data() + l.rows[i]),
                      turn_floats(links[i], limits), limits.in_flight});
}

Links::~Links() = default;

void Links::abandon() {
  for (const LinkBox& box : boxes_) box.sent->store(kNoMoreSteps, std::memory_order_release);
  tokens_.sampled->store(kNoMoreSteps, std::memory_order_release);
}

const LinkBox* box_of(const Program& program, const std::vector<LinkBox>& bound, bool sends) {
  if (bound.size() != program.links.size())
    throw_error(ErrorKind::internal, "the program has {} links, {} are bound", program.links.size(),
                bound.size());
  const auto end = link_end(program, sends);
  return end ? &bound.at(end->link) : nullptr;
}

// At first it looks all the time: a neighbour's hop takes microseconds. Then it lets others run, who may be
// the part that it waits for.
bool wait_for(const StepCount& count, std::uint64_t steps) {
  constexpr auto kEager = std::chrono::microseconds(200);
  const auto begin = std::chrono::steady_clock::now();
  std::uint64_t now;
  for (std::uint32_t looks = 0; (now = count.load(std::memory_order_acquire)) < steps; ++looks) {
    if (looks % 64 != 63) continue;
    if (std::chrono::steady_clock::now() - begin < kEager)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return now != kNoMoreSteps;
}

}  // namespace steelyard
