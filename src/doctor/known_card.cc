#include "doctor/known_card.h"

#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>

namespace steelyard::doctor {
namespace {

// "NVIDIA GeForce RTX 3060 Ti" → "rtx3060ti", so that blanks don't matter.
std::string plain(std::string_view name) {
  std::string text;
  for (const char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)))
      text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

const Card* known_card(const std::string& name) {
  const std::string all = plain(name);
  const Card* best = nullptr;
  std::size_t longest = 0;
  for (const Card& card : cards()) {
    // Only the model: "A100 40 GB" and "RTX 4060 Ti 16 GB" say their memory as well.
    std::string_view title = card.title;
    for (const std::string_view end : {" 16 GB", " 40 GB", " 80 GB", " SXM"})
      if (title.ends_with(end)) title.remove_suffix(end.size());
    const std::string model = plain(title);
    if (all.find(model) != all.npos && model.size() > longest) best = &card, longest = model.size();
  }
  if (best && (all.find("laptop") != all.npos || all.find("mobile") != all.npos))
    return nullptr;  // another chip
  return best;
}

}  // namespace steelyard::doctor
