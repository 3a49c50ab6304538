#include "app/word_wrap.h"

#include <algorithm>
#include <utility>

#include "app/terminal.h"
#include "base/utf8.h"

namespace steelyard {

WordWrap::WordWrap(Write write, std::function<std::uint32_t()> columns)
    : write_(std::move(write)), columns_(std::move(columns)) {}

void WordWrap::add(std::string_view text) {
  width_ = std::max(columns_(), 2u);
  while (!text.empty()) {
    const Utf8Char next = decode_utf8(text);
    take(text.substr(0, next.length), next.code);
    text.remove_prefix(next.length);
  }
  if (!out_.empty()) write_(std::exchange(out_, {}));
}

void WordWrap::finish() {
  put_word();
  out_ += std::exchange(spaces_, {});
  if (!out_.empty()) write_(std::exchange(out_, {}));
}

void WordWrap::take(std::string_view character, std::uint32_t code) {
  if (code == '\n') {
    put_word();
    spaces_.clear();
    out_ += '\n';
    column_ = 0;
  } else if (code == ' ') {
    put_word();
    spaces_ += ' ';
  } else if (code == '\t') {
    put_word();
    out_ += std::exchange(spaces_, {}) + '\t';
    column_ = std::min((column_ / 8 + 1) * 8, width_ - 1);
  } else {
    const std::uint32_t columns = columns_of(code);
    if (columns > 1 || word_columns_ + columns > width_) put_word();
    word_ += character;
    word_columns_ += columns;
    if (columns > 1) put_word();
  }
}

void WordWrap::put_word() {
  if (word_.empty()) return;
  const auto spaces = static_cast<std::uint32_t>(spaces_.size());
  if (column_ > 0 && column_ + spaces + word_columns_ > width_) {
    out_ += '\n';
    column_ = 0;
  } else {
    out_ += spaces_;
    column_ += spaces;
  }
  spaces_.clear();
  out_ += std::exchange(word_, {});
  column_ += std::exchange(word_columns_, 0);
}

}  // namespace steelyard
