#include "device/page_tables.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace steelyard {

PageTables::PageTables(std::span<const std::uint32_t> pages_per_sequence, std::uint32_t slots,
                       std::uint32_t entries, std::uint64_t shuffle)
    : groups_(pages_per_sequence.size()), tables_(slots * groups_) {
  std::mt19937_64 random(shuffle);
  for (std::size_t g = 0; g < groups_; ++g) {
    std::vector<std::int32_t> pages(std::size_t{pages_per_sequence[g]} * slots);
    std::iota(pages.begin(), pages.end(), 0);
    if (shuffle != 0) std::shuffle(pages.begin(), pages.end(), random);
    for (std::uint32_t slot = 0; slot < slots; ++slot)
      for (std::uint32_t p = 0; p < entries; ++p)
        tables_[slot * groups_ + g].push_back(pages[std::size_t{p % pages_per_sequence[g]} * slots + slot]);
  }
  views_.assign(tables_.begin(), tables_.end());
}

}  // namespace steelyard
