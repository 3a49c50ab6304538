// Block tables whose pages are dealt out once, for who runs steps without the engine: tools and tests.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace steelyard {

class PageTables {
 public:
  // A sequence has pages_per_sequence[g] pages of group g, which `slots` sequences take in turn, so that a
  // sequence's neighbours lie apart; a table of more entries uses them again in a ring, as behind a window.
  // `shuffle`, if not 0, seeds a random order of the pages.
  PageTables(std::span<const std::uint32_t> pages_per_sequence, std::uint32_t slots, std::uint32_t entries,
             std::uint64_t shuffle = 0);
  PageTables(PageTables&&) = default;  // a copy's views would be the original's
  PageTables& operator=(PageTables&&) = default;

  // By group: the page ids of the sequence in `slot`.
  std::span<const std::span<const std::int32_t>> of(std::uint32_t slot) const {
    return std::span(views_).subspan(slot * groups_, groups_);
  }

 private:
  std::size_t groups_;
  std::vector<std::vector<std::int32_t>> tables_;     // [slot][group]
  std::vector<std::span<const std::int32_t>> views_;  // the same
};

}  // namespace steelyard
