#include "text/stream.h"

#include <algorithm>

#include "base/utf8.h"

namespace steelyard {

std::string Utf8Stream::push(std::string_view piece) {
  std::string out;
  if (pending_.empty()) {
    std::size_t open = append_valid_utf8(out, piece);
    pending_.assign(piece.substr(piece.size() - open));
    return out;
  }
  std::string all = pending_ + std::string(piece);
  std::size_t open = append_valid_utf8(out, all);
  pending_.assign(all, all.size() - open, open);
  return out;
}

std::string Utf8Stream::flush() {
  std::string out;
  if (!pending_.empty()) append_utf8(out, 0xFFFD);
  pending_.clear();
  return out;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& s) { return s.empty(); });
  for (const std::string& stop : stops_) longest_ = std::max(longest_, stop.size());
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped_) return {};
  held_.append(text);
  // The stop string that is complete first ends the stream; of those ending at the same byte, the one that
  // began first.
  std::size_t best_end = std::string::npos, best_begin = 0;
  for (const std::string& stop : stops_) {
    std::size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    std::size_t end = at + stop.size();
    if (end < best_end || (end == best_end && at < best_begin)) {
      best_end = end, best_begin = at;
      matched_ = stop;
    }
  }
  if (best_end != std::string::npos) {
    stopped_ = true;
    held_.resize(best_begin);
    return std::move(held_);
  }
  std::size_t keep = 0;  // the longest end of held_ that begins a stop string
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) keep = n;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string StopMatcher::flush() {
  std::string out;
  out.swap(held_);
  return stopped_ ? std::string() : out;
}

}  // namespace steelyard
