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

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    if (stop.empty()) continue;
    Watched watched{.text = std::move(stop), .shorter = {0}};
    for (std::size_t n = 1; n < watched.text.size(); ++n)
      watched.shorter.push_back(watched.longer(watched.shorter.back(), watched.text[n]));
    watched_.push_back(std::move(watched));
  }
}

// Knuth, Morris and Pratt's step.
std::uint32_t StopMatcher::Watched::longer(std::uint32_t length, char next) const {
  while (length > 0 && text[length] != next) length = shorter[length - 1];
  return length + (text[length] == next);
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped_) return {};
  const std::size_t before = held_.size();
  held_.append(text);
  std::size_t keep = 0;  // the longest end of held_ that begins a stop string
  for (std::size_t i = before; i < held_.size(); ++i) {
    const Watched* found = nullptr;  // of those that end here, the longest
    keep = 0;
    for (Watched& each : watched_) {
      each.length = each.longer(each.length, held_[i]);
      keep = std::max<std::size_t>(keep, each.length);
      const bool whole = each.length == each.text.size();
      if (whole && (!found || each.text.size() > found->text.size())) found = &each;
    }
    if (!found) continue;
    stopped_ = true;
    matched_ = found->text;
    held_.resize(i + 1 - matched_.size());
    return std::move(held_);
  }
  if (before == held_.size()) return {};
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
