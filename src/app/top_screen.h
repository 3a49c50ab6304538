// `steelyard top`'s screen as lines of text, for any size from 80 × 24 on. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "app/top_data.h"

namespace steelyard {

struct TopView {
  TopOrder order = TopOrder::speed;
  std::size_t chosen = 0;  // of the models, in order
  bool map = true;         // show what of the chosen one lies where
  bool frozen = false;
};

struct TopLine {
  std::string text;     // ASCII, no longer than the width
  bool bright = false;  // a heading
  bool chosen = false;
};

// At most `height` lines; the last one says the keys.
std::vector<TopLine> top_lines(const TopData& data, const TopView& view, std::size_t width,
                               std::size_t height);

}  // namespace steelyard
