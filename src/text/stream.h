// What stands between sampled tokens and a reader: whole UTF-8 characters only, and never a stop string.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

// Puts token pieces together so that only whole characters come out. Bytes that can't become valid UTF-8 come
// out as U+FFFD, one for each maximal invalid part (Unicode 15, §3.9). One stream per answer; not
// thread-safe.
class Utf8Stream {
 public:
  // Text that is complete now; may be empty.
  std::string push(std::string_view piece);
  // The end of the stream: an unfinished character becomes U+FFFD.
  std::string flush();

 private:
  std::string pending_;  // at most 3 bytes: the valid beginning of a character
};

// Watches a stream of text for stop strings. What push() and flush() return never contains a stop string, and
// only a possible beginning of one is held back. Empty stop strings are ignored.
// A byte takes a few operations for each stop string, however long they are. Not thread-safe.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);
  // Text that may be shown now. After a stop string was found, returns what stood before it, then nothing.
  std::string push(std::string_view text);
  // The end of the stream without a stop string: what was held back.
  std::string flush();
  bool stopped() const { return stopped_; }
  // The stop string that ended the stream; empty before that.
  const std::string& matched() const { return matched_; }

 private:
  // A stop string, and how many of its bytes the text so far ends with. shorter[n - 1]: the longest shorter
  // beginning that a beginning of n bytes ends with.
  struct Watched {
    std::string text;
    std::vector<std::uint32_t> shorter;
    std::uint32_t length = 0;
    std::uint32_t longer(std::uint32_t length, char next) const;
  };
  std::vector<Watched> watched_;
  std::string held_, matched_;
  bool stopped_ = false;
};

}  // namespace steelyard
