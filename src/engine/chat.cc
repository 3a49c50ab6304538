#include "engine/chat.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

// ----------------------------------------------------------------------------------------------------- marks

// Characters that no text means anything by: U+FDD0 to U+FDEF, then the private use of plane 16.
constexpr std::uint32_t kFirst = 0xFDD0, kFirstCount = 32, kSecond = 0x100000, kSecondCount = 0xFFFE;

// Which of those characters a conversation uses, so that one that it doesn't can mark places in it.
class UsedMarks {
 public:
  void add(std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte != 0xEF && byte != 0xF4) continue;
      const std::uint32_t code = decode_utf8(text.substr(i)).code;
      if (code - kFirst < kFirstCount) used_[code - kFirst] = true;
      if (code - kSecond < kSecondCount) used_[kFirstCount + code - kSecond] = true;
    }
  }
  void add_strings(const Json& value) {
    if (value.is_string()) add(value.get_ref<const std::string&>());
    if (value.is_array())
      for (const Json& item : value) add_strings(item);
    if (value.is_object())
      for (const auto& [key, item] : value.get_ref<const Json::object_t&>()) add(key), add_strings(item);
  }
  // A different one each time.
  std::string take() {
    const auto free = std::find(used_.begin(), used_.end(), false);
    if (free == used_.end())
      throw_error(ErrorKind::bad_input,
                  "the messages use every private character of Unicode's plane 16; take some out");
    *free = true;
    const auto index = static_cast<std::uint32_t>(free - used_.begin());
    std::string mark;
    append_utf8(mark, index < kFirstCount ? kFirst + index : kSecond + index - kFirstCount);
    return mark;
  }

 private:
  std::vector<bool> used_ = std::vector<bool>(kFirstCount + kSecondCount);
};

std::size_t first_character(std::string_view text) {
  std::size_t n = 1;
  while (n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) ++n;
  return n;
}

// The place of the first control token spelt out in `text` from `from` on, or npos.
std::size_t find_spelt(std::string_view text, std::size_t from, const Tokenizer& tokenizer) {
  for (; from < text.size(); ++from)
    if (tokenizer.control_token_at(text.substr(from))) return from;
  return std::string_view::npos;
}

// Whether any string or key spells a control token out.
bool spells_control(const Json& value, const Tokenizer& tokenizer) {
  const auto spelt = [&](std::string_view text) {
    return find_spelt(text, 0, tokenizer) != std::string_view::npos;
  };
  if (value.is_string()) return spelt(value.get_ref<const std::string&>());
  if (value.is_array())
    return std::any_of(value.begin(), value.end(),
                       [&](const Json& v) { return spells_control(v, tokenizer); });
  if (!value.is_object()) return false;
  const auto& members = value.get_ref<const Json::object_t&>();
  return std::any_of(members.begin(), members.end(), [&](const auto& member) {
    return spelt(member.first) || spells_control(member.second, tokenizer);
  });
}

// Every control token spelt out in `text`, broken by a mark after its first character.
std::string marked(std::string_view text, std::string_view mark, const Tokenizer& tokenizer) {
  std::string out;
  std::size_t done = 0;
  for (std::size_t at; (at = find_spelt(text, done, tokenizer)) != std::string_view::npos;) {
    const std::size_t next = at + first_character(text.substr(at));
    out.append(text, done, next - done).append(mark);
    done = next;
  }
  return out.append(text, done);
}

// The same in every string and key of a value. Keys that templates look at must stay what they are: a
// message's own keys hold no control token in practice, and marking a foreign one ("<s>": …) harms nobody.
void mark_strings(Json& value, std::string_view mark, const Tokenizer& tokenizer) {
  if (value.is_string()) value = marked(value.get_ref<const std::string&>(), mark, tokenizer);
  if (value.is_array())
    for (Json& item : value) mark_strings(item, mark, tokenizer);
  if (!value.is_object()) return;
  Json::object_t members;
  members.reserve(value.size());  // growing would copy what is there
  for (auto& [key, item] : value.get_ref<Json::object_t&>()) {
    mark_strings(item, mark, tokenizer);
    // Not emplace(), which looks through all keys: they stay different.
    members.push_back({marked(key, mark, tokenizer), std::move(item)});
  }
  value = std::move(members);
}

// Whether `text` is `other` with marks put in.
bool equal_but_for(std::string_view mark, std::string_view text, std::string_view other) {
  while (true) {
    const std::size_t at = std::min(text.find(mark), text.size());
    if (text.substr(0, at) != other.substr(0, at)) return false;
    other.remove_prefix(at);
    if (at == text.size()) return other.empty();
    text.remove_prefix(at + mark.size());
  }
}

// ------------------------------------------------------------------------------------------------- variables

constexpr std::size_t kMaxDepth = 64, kMaxMembers = 4096;

}  // namespace

bool is_plain_enough(std::string_view json) {
  std::vector<std::size_t> members;  // of each array and object that is open
  bool quoted = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (quoted) {
      i += c == '\\';
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      members.push_back(0);
      if (members.size() > kMaxDepth) return false;
    } else if (c == '}' || c == ']') {
      if (!members.empty()) members.pop_back();
    } else if (c == ':') {
      if (!members.empty() && ++members.back() > kMaxMembers) return false;
    }
  }
  return true;
}

namespace {

void complete_message(Json& message) {
  if (!message.is_object()) return;
  if (message.contains("thinking") && !message.contains("reasoning_content"))
    message["reasoning_content"] = message["thinking"];
  if (!message.contains("tool_calls") || !message["tool_calls"].is_array()) return;
  for (auto& call : message["tool_calls"]) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    Json& function = call["function"];
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    const auto& text = function["arguments"].get_ref<const std::string&>();
    if (!is_plain_enough(text)) continue;
    Json parsed = Json::parse(text, nullptr, false);
    if (parsed.is_object()) function["arguments"] = std::move(parsed);
  }
}

std::string token_text(const Vocabulary& vocabulary, TokenId id) {
  return id == kNoToken ? std::string() : std::string(vocabulary.text(id));
}

// -------------------------------------------------------------------------------------------------- encoding

// A rendered prompt. `mark` breaks control tokens that are to stay text; empty when there are none.
struct Rendered {
  std::string text, mark;
};

Rendered render_marked(const ChatTemplate& chat_template, const ChatInput& input,
                       const Tokenizer& tokenizer) {
  Json vars = template_variables(input, tokenizer.vocabulary());
  const TemplateLimits limits{.stop = input.stop};
  Json &messages = vars["messages"], &tools = vars["tools"];
  const bool any = spells_control(messages, tokenizer) || spells_control(tools, tokenizer);
  Rendered plain{chat_template.render(vars, limits), {}};
  if (!any) return plain;
  UsedMarks used;
  used.add(plain.text), used.add_strings(messages), used.add_strings(tools);
  std::string mark = used.take();
  mark_strings(messages, mark, tokenizer);
  mark_strings(tools, mark, tokenizer);
  Rendered broken{chat_template.render(vars, limits), std::move(mark)};
  if (!equal_but_for(broken.mark, broken.text, plain.text))
    throw_error(
        ErrorKind::bad_input,
        "the chat template treats a control token that a message spells out in a way of its own; take the "
        "control tokens out of the messages");
  return broken;
}

std::vector<TokenId> encode_rendered(std::string_view text, std::string_view mark,
                                     const Tokenizer& tokenizer) {
  return tokenizer.encode(text, {.add_special = false, .parse_special = true, .mark = mark});
}

void ensure_bos(std::vector<TokenId>& ids, const Vocabulary& vocabulary) {
  if (vocabulary.add_bos() && vocabulary.bos() != kNoToken &&
      (ids.empty() || ids.front() != vocabulary.bos()))
    ids.insert(ids.begin(), vocabulary.bos());
}

// What the template writes after an answer: the rest of a conversation that began with `answer`, a character
// that stands for all there was before. Nothing when the template doesn't show the answer once, as it is.
std::optional<std::vector<TokenId>> encode_after_answer(const ChatTemplate& chat_template, ChatInput input,
                                                        const Tokenizer& tokenizer) {
  UsedMarks used;
  used.add_strings(input.messages), used.add(chat_template.source());
  const std::string answer = used.take();
  Json messages = Json::array();
  messages.push_back({{"role", "user"}, {"content", "?"}});
  messages.push_back({{"role", "assistant"}, {"content", answer}});
  for (Json& message : input.messages) messages.push_back(std::move(message));
  input.messages = std::move(messages);
  const Rendered rendered = render_marked(chat_template, input, tokenizer);
  const std::size_t at = rendered.text.find(answer);
  if (at == std::string::npos || rendered.text.find(answer, at + 1) != std::string::npos) return std::nullopt;
  return encode_rendered(std::string_view(rendered.text).substr(at + answer.size()), rendered.mark,
                         tokenizer);
}

}  // namespace

bool is_system_message(const Json& message) {
  if (!message.is_object()) return false;
  const auto role = message.find("role");
  return role != message.end() && (*role == "system" || *role == "developer");
}

Json template_variables(const ChatInput& input, const Vocabulary& vocabulary) {
  Json vars = Json::object();
  vars.get_ref<Json::object_t&>().reserve(8);  // growing would copy what is there
  vars["messages"] = input.messages;
  for (auto& message : vars["messages"]) complete_message(message);
  vars["tools"] = input.tools.is_array() && !input.tools.empty() ? input.tools : Json();
  vars["documents"] = nullptr;
  vars["add_generation_prompt"] = input.add_generation_prompt;
  if (input.think) vars["enable_thinking"] = *input.think;
  vars["bos_token"] = token_text(vocabulary, vocabulary.bos());
  vars["eos_token"] = token_text(vocabulary, vocabulary.eos());
  return vars;
}

std::string render_chat(const ChatTemplate& chat_template, const ChatInput& input,
                        const Vocabulary& vocabulary) {
  return chat_template.render(template_variables(input, vocabulary), {.stop = input.stop});
}

std::vector<TokenId> encode_chat(const ChatTemplate& chat_template, const ChatInput& input,
                                 const Tokenizer& tokenizer) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  const Rendered rendered = render_marked(chat_template, input, tokenizer);
  std::vector<TokenId> ids = encode_rendered(rendered.text, rendered.mark, tokenizer);
  ensure_bos(ids, vocabulary);
  return ids;
}

std::vector<TokenId> continue_chat(const ChatTemplate& chat_template, const ChatInput& input,
                                   std::vector<TokenId> before, const Tokenizer& tokenizer) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  ChatInput rest = input;
  rest.messages = Json::array();
  for (const Json& message : input.messages)
    if (!is_system_message(message)) rest.messages.push_back(message);
  auto after = encode_after_answer(chat_template, rest, tokenizer);
  if (!after) {
    after = encode_chat(chat_template, rest, tokenizer);
    if (!before.empty() && !after->empty() && after->front() == vocabulary.bos())
      after->erase(after->begin());
  }
  // An answer that ended by its end token may already have it.
  if (!before.empty() && !after->empty() && vocabulary.is_end(before.back()) &&
      after->front() == before.back())
    before.pop_back();
  before.insert(before.end(), after->begin(), after->end());
  ensure_bos(before, vocabulary);
  return before;
}

TemplateAbilities template_abilities(std::string_view source) {
  const auto mentions = [&](std::string_view word) { return source.find(word) != std::string_view::npos; };
  return {.tools = mentions("tools"),
          .thinking = mentions("enable_thinking") || mentions("reasoning_content") || mentions("<think>")};
}

}  // namespace steelyard
