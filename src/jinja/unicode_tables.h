// Unicode data behind Python's str methods; the tables are made by tools/make_unicode_tables.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steelyard::jinja {

enum class Category : std::uint8_t {  // clang-format off
  Lu, Ll, Lt, Lm, Lo, Mn, Mc, Me, Nd, Nl, No, Pc, Pd, Ps, Pe, Pi, Pf, Po, Sm, Sc, Sk, So, Zs, Zl, Zp, Cc, Cf, Cs, Co, Cn
};

extern const std::uint32_t kCategoryRuns[];  // first code << 8 | Category, ascending
extern const std::size_t kCategoryRunCount;

// Codes first, first + step, … last map to code + difference.
struct CaseRun {
  std::uint32_t first, last;
  std::uint32_t step;
  std::int32_t difference;
};
// A code that maps to two or three; unused places are 0.
struct LongCase {
  std::uint32_t code;
  std::uint32_t mapped[3];
};
extern const CaseRun kUpperRuns[], kLowerRuns[], kTitleRuns[];
extern const std::size_t kUpperRunCount, kLowerRunCount, kTitleRunCount;
extern const LongCase kUpperLong[], kLowerLong[], kTitleLong[];
extern const std::size_t kUpperLongCount, kLowerLongCount, kTitleLongCount;

}  // namespace steelyard::jinja
