// What an answer holds beside text for its reader: thoughts, and calls of tools. Models write both as text of
// their own kinds; which one, their chat template tells. Pure; one parser an answer, one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

// How a model marks what isn't text. Empty marks never occur.
struct AnswerSyntax {
  std::string think_open, think_close;  // "<think>" … "</think>", at the answer's beginning
  bool thinking = false;                // the prompt has opened the thoughts already
  std::string call_open, call_close;    // around one call or a list of them; no close: to the answer's end
  std::vector<std::string> dropped;     // marks around several calls
  bool bare_calls = false;              // an answer that is a JSON object with a name of a tool is a call
  nlohmann::ordered_json tools;         // those of the request; null: calls are text as any other
  bool one_call = false;                // further calls are left out

  // Whether an answer's text can be anything but text.
  bool any() const { return !think_open.empty() || tools.is_array(); }
  // All marks, such as "<think>".
  std::vector<std::string_view> marks() const;
};

// From a chat template's source. `tools`: as ChatInput has them. `prompt_end`: the last bytes of the prompt,
// which may open the thoughts.
AnswerSyntax answer_syntax(std::string_view chat_template, const nlohmann::ordered_json& tools,
                           std::string_view prompt_end);

struct AnswerPart {
  enum class Kind : std::uint8_t { text, thinking, call };
  Kind kind = Kind::text;
  std::string text;                  // of a call: the tool's name
  nlohmann::ordered_json arguments;  // of a call: an object
};

// A call that can't be read comes out as the text that it is. What might be the beginning of a mark is held
// back until it is known. The parts don't depend on the pieces that an answer comes in, but for white space
// in runs of more than 256 bytes. Time is linear in the text; no more than a call, or an answer that begins
// as JSON, is kept.
class AnswerParser {
 public:
  explicit AnswerParser(AnswerSyntax syntax);
  // Parts that are complete now, appended to `out`; whole UTF-8 characters in, whole ones out.
  void push(std::string_view text, std::vector<AnswerPart>& out);
  // The answer's end: what was held back.
  void finish(std::vector<AnswerPart>& out);
  std::uint32_t calls() const { return calls_; }

 private:
  enum class State : std::uint8_t { begin, thinking, after_thinking, text, call, bare };
  bool step(bool last, std::vector<AnswerPart>& out);
  bool begin(bool last, std::vector<AnswerPart>& out);
  bool think(bool last, std::vector<AnswerPart>& out);
  bool read_text(bool last, std::vector<AnswerPart>& out);
  bool read_call(bool last, std::vector<AnswerPart>& out);
  bool read_bare(bool last, std::vector<AnswerPart>& out);
  bool ends_in_string(std::string_view body);
  bool take_calls(std::string_view body, bool known_only, std::vector<AnswerPart>& out);
  void emit(AnswerPart::Kind kind, std::string_view text, std::vector<AnswerPart>& out);
  std::string_view rest() const { return std::string_view(held_).substr(at_); }

  AnswerSyntax syntax_;
  State state_ = State::begin;
  std::string held_;  // from at_ on: not given out yet
  std::size_t at_ = 0;
  std::size_t seen_ = 0;     // of a call's bytes: looked through for its end
  std::size_t scanned_ = 0;  // likewise: for whether they end within a JSON string
  bool quoted_ = false;
  bool any_thought_ = false;
  bool may_repeat_ = false;  // the mark that opens thoughts, though the prompt ended with it
  std::uint32_t calls_ = 0;
};

}  // namespace steelyard
