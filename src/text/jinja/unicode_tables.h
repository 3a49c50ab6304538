// Unicode data behind Python's str methods; the tables are made by tools/make_unicode_tables.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace steelyard::jinja {

enum class Category : uint8_t {  // clang-format off
  Lu, Ll, Lt, Lm, Lo, Mn, Mc, Me, Nd, Nl, No, Pc, Pd, Ps, Pe, Pi, Pf, Po, Sm, Sc, Sk, So, Zs, Zl, Zp, Cc, Cf, Cs, Co, Cn
};

extern const uint32_t kCategoryRuns[];  // first code << 8 | Category, ascending
extern const size_t kCategoryRunCount;

// Codes first, first + step, … last map to code + difference.
struct CaseRun {
  uint32_t first, last;
  uint32_t step;
  int32_t difference;
};
// A code that maps to two or three; unused places are 0.
struct LongCase {
  uint32_t code;
  uint32_t mapped[3];
};
extern const CaseRun kUpperRuns[], kLowerRuns[], kTitleRuns[];
extern const size_t kUpperRunCount, kLowerRunCount, kTitleRunCount;
extern const LongCase kUpperLong[], kLowerLong[], kTitleLong[];
extern const size_t kUpperLongCount, kLowerLongCount, kTitleLongCount;

}  // namespace steelyard::jinja
