#include "device/link.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <thread>

#include "base/error.h"
#include "device/carver.h"
#include "device/device.h"
#include "program/uses.h"

namespace steelyard {
namespace {

using Kind = LinkSpec::Kind;

// Offsets of a model's boxes. Counts of different writers lie in different cache lines: devices poll them.
struct Layout {
  std::vector<std::uint64_t> sent, rows, words;  // by LinkId
  std::uint64_t sampled = 0, last = 0;
  std::uint64_t bytes = 0;
};

// A box without its addresses.
LinkBox shape_of(const LinkSpec& link, const StepLimits& limits) {
  LinkBox box{.writers = link.writers, .uses = link.uses};
  switch (link.kind) {
    case Kind::rows:
      box.turns = limits.in_flight;
      box.turn_floats = std::uint64_t{limits.rows} * link.width;
      break;
    case Kind::sum:
      box.turns = 2;
      box.most_rows = limits.rows;
      box.writer_floats = std::uint64_t{limits.rows} * link.width;
      box.turn_floats = box.writer_floats * link.writers;
      break;
    case Kind::logits:
      box.turns = limits.in_flight;
      box.most_rows = std::max(limits.outputs, 1u);
      box.chunks = (link.width + kChunkColumns - 1) / kChunkColumns;
      box.turn_floats = std::uint64_t{limits.outputs} * link.width;
      break;
  }
  return box;
}

Layout lay_out(const std::vector<LinkSpec>& links, const StepLimits& limits) {
  Layout l;
  Carver carve(256);
  l.sampled = carve.take(sizeof(StepCount));
  l.last = carve.take(limits.slots * sizeof(std::int32_t));
  for (const LinkSpec& link : links) {
    const LinkBox box = shape_of(link, limits);
    l.sent.push_back(carve.take(box.counts() * sizeof(StepCount)));
    l.rows.push_back(carve.take(box.turns * box.turn_floats * sizeof(float)));
    const std::uint64_t words = link.kind == Kind::sum ? 2 * std::uint64_t{link.writers} * link.width : 0;
    l.words.push_back(carve.take(words * sizeof(std::uint64_t)));
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
  const auto counts = [&](std::uint64_t offset, std::uint64_t n) {
    auto* first = reinterpret_cast<StepCount*>(memory_->data() + offset);
    for (std::uint64_t i = 0; i < n; ++i) new (first + i) StepCount(0);
    return first;
  };
  tokens_ = {counts(l.sampled, 1), reinterpret_cast<std::int32_t*>(memory_->data() + l.last)};
  for (std::size_t i = 0; i < links.size(); ++i) {
    LinkBox& box = boxes_.emplace_back(shape_of(links[i], limits));
    box.sent = counts(l.sent[i], box.counts());
    box.rows = reinterpret_cast<float*>(memory_->data() + l.rows[i]);
    const bool sums = links[i].kind == Kind::sum;
    words_.push_back(sums ? reinterpret_cast<std::uint64_t*>(memory_->data() + l.words[i]) : nullptr);
  }
}

Links::~Links() = default;

void Links::offer_words() {
  for (std::size_t i = 0; i < boxes_.size(); ++i) boxes_[i].words = words_[i];
}

void Links::abandon() {
  for (const LinkBox& box : boxes_)
    for (std::uint64_t i = 0; i < box.counts(); ++i)
      box.sent[i].store(kNoMoreSteps, std::memory_order_release);
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
