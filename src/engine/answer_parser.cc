#include "engine/answer_parser.h"

#include <algorithm>
#include <utility>

#include "engine/call_reader.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;
using Kind = AnswerPart::Kind;

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::size_t kMostSpace = 256;  // held back; a longer run of white space is text like any other

std::string_view without_leading_space(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kSpace), text.size()));
}
std::string_view without_trailing_space(std::string_view text) {
  const std::size_t last = text.find_last_not_of(kSpace), end = last == std::string_view::npos ? 0 : last + 1;
  return text.size() - end > kMostSpace ? text : text.substr(0, end);
}

// How many bytes at the end of `text` might be the beginning of `mark`.
std::size_t begun(std::string_view text, std::string_view mark) {
  for (std::size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n)
    if (text.ends_with(mark.substr(0, n))) return n;
  return 0;
}

// Marks of calls, by what of them a template contains; the first that fits counts.
struct CallMarks {
  std::string_view sign, open, close;
};
constexpr CallMarks kCallMarks[] = {
    {"<tool_call>", "<tool_call>", "</tool_call>"},                             // Hermes, Qwen, GLM
    {"<|/tool_call|>", "<|tool_call|>", "<|/tool_call|>"},                      // Phi
    {"<|tool_call|>", "<|tool_call|>", ""},                                     // Granite
    {"[TOOL_CALLS]", "[TOOL_CALLS]", ""},                                       // Mistral
    {"<｜tool▁call▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"},  // DeepSeek
    {"<|python_tag|>", "<|python_tag|>", ""},                                   // Llama
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

std::vector<std::string_view> AnswerSyntax::marks() const {
  std::vector<std::string_view> all;
  for (const std::string* mark : {&think_open, &think_close, &call_open, &call_close})
    if (!mark->empty()) all.push_back(*mark);
  for (const std::string& mark : dropped) all.push_back(mark);
  return all;
}

AnswerSyntax answer_syntax(std::string_view chat_template, const Json& tools, std::string_view prompt_end) {
  AnswerSyntax s;
  if (contains(chat_template, "<think>") || contains(chat_template, "</think>")) s = {"<think>", "</think>"};
  if (contains(chat_template, "[THINK]")) s = {"[THINK]", "[/THINK]"};
  s.thinking = !s.think_open.empty() && without_trailing_space(prompt_end).ends_with(s.think_open);
  if (!tools.is_array()) return s;
  s.tools = tools;
  for (const CallMarks& m : kCallMarks) {
    if (!contains(chat_template, m.sign)) continue;
    s.call_open = m.open;
    s.call_close = m.close;
    break;
  }
  if (s.call_open == "<｜tool▁call▁begin｜>") s.dropped = {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"};
  s.bare_calls = s.call_open.empty() || s.call_open == "<|python_tag|>";
  return s;
}

AnswerParser::AnswerParser(AnswerSyntax syntax) : syntax_(std::move(syntax)) {
  if (syntax_.thinking) state_ = State::thinking;
  may_repeat_ = syntax_.thinking;
}

void AnswerParser::push(std::string_view text, std::vector<AnswerPart>& out) {
  constexpr std::size_t kSlice = 1024;  // what follows a mark is looked through again
  for (; !text.empty(); text.remove_prefix(std::min(text.size(), kSlice))) {
    held_.erase(0, at_);
    at_ = 0;
    held_ += text.substr(0, kSlice);
    while (step(false, out)) {
    }
  }
}

void AnswerParser::finish(std::vector<AnswerPart>& out) {
  while (step(true, out)) {
  }
}

// Goes on in one state; false: nothing more can be said of what is there.
bool AnswerParser::step(bool last, std::vector<AnswerPart>& out) {
  switch (state_) {
    case State::begin:
    case State::after_thinking:
      return begin(last, out);
    case State::thinking:
      return think(last, out);
    case State::text:
      return read_text(last, out);
    case State::call:
      return read_call(last, out);
    case State::bare:
      return read_bare(last, out);
  }
  return false;
}

void AnswerParser::emit(Kind kind, std::string_view text, std::vector<AnswerPart>& out) {
  if (text.empty()) return;
  if (!out.empty() && out.back().kind == kind)
    out.back().text += text;
  else
    out.push_back({kind, std::string(text), {}});
}

// An answer's first bytes, or the first after its thoughts: white space there is said only with text that
// follows an answer's very beginning.
bool AnswerParser::begin(bool last, std::vector<AnswerPart>& out) {
  const std::string_view all = rest(), text = without_leading_space(all);
  const bool first = state_ == State::begin;
  if (text.empty() && all.size() <= kMostSpace) {
    if (last && first) emit(Kind::text, all, out);
    if (last) at_ = held_.size();
    return false;
  }
  const std::string_view open = first ? std::string_view(syntax_.think_open) : std::string_view();
  if (!open.empty() && text.starts_with(open)) {
    at_ += all.size() - text.size() + open.size();
    state_ = State::thinking;
    return true;
  }
  if (!open.empty() && !last && open.starts_with(text)) return false;
  if (!first) at_ += all.size() - text.size();
  state_ = syntax_.bare_calls && !text.empty() && (text.front() == '{' || text.front() == '[') ? State::bare
                                                                                               : State::text;
  return true;
}

bool AnswerParser::think(bool last, std::vector<AnswerPart>& out) {
  std::string_view text = rest();
  if (!any_thought_) text = without_leading_space(text);
  if (may_repeat_) {
    if (!last && std::string_view(syntax_.think_open).starts_with(text)) return false;
    if (text.starts_with(syntax_.think_open))
      text = without_leading_space(text.substr(syntax_.think_open.size()));
    may_repeat_ = false;
  }
  at_ = held_.size() - text.size();
  const std::size_t end = text.find(syntax_.think_close);
  const bool closed = end != std::string_view::npos;
  std::string_view thought = text.substr(0, std::min(end, text.size()));
  if (!closed && !last) thought.remove_suffix(begun(thought, syntax_.think_close));
  thought = without_trailing_space(thought);
  any_thought_ = any_thought_ || !thought.empty();
  emit(Kind::thinking, thought, out);
  at_ += closed ? end + syntax_.think_close.size() : last ? text.size() : thought.size();
  if (closed) state_ = State::after_thinking;
  return closed;
}

bool AnswerParser::read_text(bool last, std::vector<AnswerPart>& out) {
  const std::string_view text = rest();
  std::size_t end = text.size(), length = 0, held = 0;
  bool call = false;
  const auto look = [&](std::string_view mark, bool is_call) {
    if (mark.empty()) return;
    if (const std::size_t at = text.find(mark); at < end) end = at, length = mark.size(), call = is_call;
    if (!last) held = std::max(held, begun(text, mark));
  };
  look(syntax_.call_open, true);
  for (const std::string& mark : syntax_.dropped) look(mark, false);
  const bool marks = !syntax_.call_open.empty();
  std::string_view said = text.substr(0, length > 0 ? end : text.size() - held);
  // White space before a call belongs to it, and after calls it is nobody's.
  if (marks && (length > 0 || !last)) said = without_trailing_space(said);
  if (calls_ > 0 && without_leading_space(said).empty() && last) said = {};
  emit(Kind::text, said, out);
  at_ += length > 0 ? end + length : last ? text.size() : said.size();
  if (length == 0) return false;
  if (call) {
    state_ = State::call;
    seen_ = scanned_ = 0;
    quoted_ = false;
  }
  return true;
}

// Whether a call in JSON is within a string after these bytes: a mark there is what the string says.
bool AnswerParser::ends_in_string(std::string_view body) {
  const std::string_view text = without_leading_space(body);
  if (text.empty() || (text.front() != '{' && text.front() != '[')) return false;
  for (; scanned_ < body.size(); ++scanned_) {
    if (quoted_ && body[scanned_] == '\\')
      ++scanned_;
    else if (body[scanned_] == '"')
      quoted_ = !quoted_;
  }
  return quoted_;
}

bool AnswerParser::read_call(bool last, std::vector<AnswerPart>& out) {
  const std::string_view text = rest(), close = syntax_.call_close;
  std::size_t end = std::string_view::npos;
  if (!close.empty()) {
    end = text.find(close, seen_);
    while (end != std::string_view::npos && ends_in_string(text.substr(0, end)))
      end = text.find(close, end + 1);
    seen_ = std::max(seen_, text.size() - std::min(text.size(), close.size() - 1));
  }
  const bool closed = end != std::string_view::npos;
  if (!closed && !last) return false;
  const std::string_view body = text.substr(0, std::min(end, text.size()));
  if (!take_calls(body, false, out)) {
    emit(Kind::text, syntax_.call_open + std::string(body), out);
    if (closed) emit(Kind::text, close, out);
  }
  at_ += closed ? end + close.size() : text.size();
  state_ = State::text;
  return closed;
}

bool AnswerParser::read_bare(bool last, std::vector<AnswerPart>& out) {
  if (!last) return false;
  const std::string_view text = rest();
  if (!take_calls(text, true, out)) emit(Kind::text, text, out);
  at_ = held_.size();
  return false;
}

bool AnswerParser::take_calls(std::string_view body, bool known_only, std::vector<AnswerPart>& out) {
  std::string_view rest;
  std::vector<ToolCall> calls = read_calls(body, syntax_.tools, rest);
  if (calls.empty() || (known_only && !rest.empty())) return false;
  if (known_only &&
      !std::ranges::all_of(calls, [&](const ToolCall& c) { return has_tool(syntax_.tools, c.name); }))
    return false;
  for (ToolCall& call : calls) {
    if (syntax_.one_call && calls_ > 0) break;
    out.push_back({Kind::call, std::move(call.name), std::move(call.arguments)});
    ++calls_;
  }
  emit(Kind::text, rest, out);
  return true;
}

}  // namespace steelyard
