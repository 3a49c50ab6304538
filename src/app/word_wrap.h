// Text on its way to a terminal, broken between words.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace steelyard {

// Takes text in parts and passes it on with newlines in place of the spaces at which lines end. The last word
// is held back until it is whole. Spaces at the beginning of a line stay; characters of two columns (Chinese,
// Japanese, Korean, most emoji) may part anywhere; a word that is longer than a line is cut at its end.
class WordWrap {
 public:
  using Write = std::function<void(std::string_view text)>;
  // `columns` is asked for each part: windows change.
  WordWrap(Write write, std::function<std::uint32_t()> columns);

  // Whole UTF-8 characters without control characters other than newline and tab.
  void add(std::string_view text);
  // The end of the text: passes on what was held back.
  void finish();

 private:
  void take(std::string_view character, std::uint32_t code);
  void put_word();

  Write write_;
  std::function<std::uint32_t()> columns_;
  std::uint32_t width_ = 80;
  std::uint32_t column_ = 0;  // where the next character comes
  std::string out_, spaces_, word_;
  std::uint32_t word_columns_ = 0;
};

}  // namespace steelyard
