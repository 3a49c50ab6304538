#include "jinja/text_search.h"

#include <algorithm>

namespace steelyard::jinja {

TextSearch::TextSearch(Heap& heap, std::string_view wanted, bool backward)
    : heap_(heap), wanted_(wanted), backward_(backward) {
  heap_.read_bytes(wanted.size());
  if (wanted.size() < 2) return;
  heap_.expect(wanted.size() * sizeof(std::uint32_t));
  shorter_.reserve(wanted.size());
  shorter_.push_back(0);
  for (std::size_t n = 1; n < wanted.size(); ++n)
    shorter_.push_back(static_cast<std::uint32_t>(longer(shorter_.back(), wanted_at(n))));
}

std::size_t TextSearch::longer(std::size_t length, char next) const {
  while (length > 0 && wanted_at(length) != next) length = shorter_[length - 1];
  return length + (wanted_at(length) == next);
}

std::size_t TextSearch::find(std::string_view text, std::size_t from) {
  std::size_t at = from, length = 0;
  if (wanted_.size() == 1) {
    at = text.find(wanted_[0], from);
    heap_.copy_bytes(std::min(at, text.size()) - std::min(from, text.size()));
    return at;
  }
  while (at < text.size() && length < wanted_.size()) length = longer(length, text[at++]);
  heap_.read_bytes(at - from);
  return length == wanted_.size() ? at - length : std::string_view::npos;
}

std::size_t TextSearch::rfind(std::string_view text) {
  std::size_t left = text.size(), length = 0;
  if (wanted_.size() == 1) {
    const std::size_t at = text.rfind(wanted_[0]);
    heap_.copy_bytes(at == std::string_view::npos ? text.size() : text.size() - at);
    return at;
  }
  while (left > 0 && length < wanted_.size()) length = longer(length, text[--left]);
  heap_.read_bytes(text.size() - left);
  return length == wanted_.size() ? left : std::string_view::npos;
}

}  // namespace steelyard::jinja
