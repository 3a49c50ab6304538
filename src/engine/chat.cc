#include "engine/chat.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

// U+FDD0, a noncharacter: no text means anything by it.
constexpr std::string_view kMark = "\xEF\xB7\x90";

// The control tokens of a vocabulary by their first byte, the longest first.
class ControlTokens {
 public:
  explicit ControlTokens(const Vocabulary& vocabulary) {
    for (TokenId id = 0; id < vocabulary.size(); ++id) {
      if (vocabulary.type(id) != TokenType::control && vocabulary.type(id) != TokenType::unknown) continue;
      const std::string_view text = vocabulary.text(id);
      if (!text.empty()) by_byte_[static_cast<unsigned char>(text[0])].push_back({text, id});
    }
    for (auto& list : by_byte_)
      std::stable_sort(list.begin(), list.end(),
                       [](auto& a, auto& b) { return a.text.size() > b.text.size(); });
  }
  struct Entry {
    std::string_view text;
    TokenId id;
  };
  // The longest control token that `text` begins with, or nullptr.
  const Entry* at_start(std::string_view text) const {
    if (text.empty()) return nullptr;
    for (const Entry& e : by_byte_[static_cast<unsigned char>(text[0])])
      if (text.starts_with(e.text)) return &e;
    return nullptr;
  }

 private:
  std::array<std::vector<Entry>, 256> by_byte_;
};

std::size_t first_character(std::string_view text) {
  std::size_t n = 1;
  while (n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) ++n;
  return n;
}

std::string without_marks(std::string text) {
  for (std::size_t at = text.find(kMark); at != std::string::npos; at = text.find(kMark, at))
    text.erase(at, kMark.size());
  return text;
}

// Breaks every control token spelled out in `text` by a mark after its first character. Marks of the user's
// own go.
std::string marked(const std::string& original, const ControlTokens& control, bool& any) {
  const std::string text = without_marks(original);
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    if (control.at_start(std::string_view(text).substr(i))) {
      const std::size_t n = first_character(std::string_view(text).substr(i));
      out.append(text, i, n).append(kMark);
      i += n;
      any = true;
    } else {
      out += text[i++];
    }
  }
  return out;
}

// Every string and key of a value. Depth is bounded by the JSON reader.
Json marked(const Json& value, const ControlTokens& control, bool& any) {
  if (value.is_string()) return marked(value.get_ref<const std::string&>(), control, any);
  Json out = value;
  if (value.is_array())
    for (auto& item : out) item = marked(item, control, any);
  if (value.is_object()) {
    out = Json::object();
    for (const auto& [key, item] : value.items()) out[marked(key, control, any)] = marked(item, control, any);
  }
  return out;
}

// Keys that templates look at must stay what they are: a message's own keys hold no control token in
// practice, and marking a foreign one ("<s>": …) harms nobody.
ChatInput marked(const ChatInput& input, const ControlTokens& control, bool& any) {
  ChatInput out = input;
  out.messages = marked(input.messages, control, any);
  out.tools = marked(input.tools, control, any);
  return out;
}

std::string_view strip_left(std::string_view text) {
  const std::size_t at = text.find_first_not_of(" \t\n\r\f\v");
  return at == std::string_view::npos ? std::string_view() : text.substr(at);
}

// Control tokens where they stand unbroken, plain text between them with its marks taken out.
std::vector<TokenId> encode_marked(const std::string& text, const ControlTokens& control,
                                   const Tokenizer& tokenizer) {
  std::vector<TokenId> out;
  std::string plain;
  bool after_special = false;
  const auto flush = [&] {
    const std::string clean = without_marks(plain);
    plain.clear();
    const bool strip = after_special && tokenizer.vocabulary().strip_after_special();
    const std::string_view segment = strip ? strip_left(clean) : std::string_view(clean);
    if (segment.empty()) return;
    const auto ids = tokenizer.encode(segment, {.add_special = false, .parse_special = false});
    out.insert(out.end(), ids.begin(), ids.end());
  };
  for (std::size_t i = 0; i < text.size();) {
    if (const auto* token = control.at_start(std::string_view(text).substr(i))) {
      flush();
      out.push_back(token->id);
      after_special = true;
      i += token->text.size();
    } else {
      plain += text[i++];
    }
  }
  flush();
  return out;
}

void complete_message(Json& message) {
  if (!message.is_object()) return;
  if (message.contains("thinking") && !message.contains("reasoning_content"))
    message["reasoning_content"] = message["thinking"];
  if (!message.contains("tool_calls") || !message["tool_calls"].is_array()) return;
  for (auto& call : message["tool_calls"]) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    Json& function = call["function"];
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    Json parsed = Json::parse(function["arguments"].get<std::string>(), nullptr, false);
    if (parsed.is_object()) function["arguments"] = std::move(parsed);
  }
}

std::string token_text(const Vocabulary& vocabulary, TokenId id) {
  return id == kNoToken ? std::string() : std::string(vocabulary.text(id));
}

}  // namespace

Json template_variables(const ChatInput& input, const Vocabulary& vocabulary) {
  Json vars = Json::object();
  vars["messages"] = input.messages;
  for (auto& message : vars["messages"]) complete_message(message);
  if (input.tools.is_array() && !input.tools.empty()) vars["tools"] = input.tools;
  vars["add_generation_prompt"] = input.add_generation_prompt;
  if (input.think) vars["enable_thinking"] = *input.think;
  vars["bos_token"] = token_text(vocabulary, vocabulary.bos());
  vars["eos_token"] = token_text(vocabulary, vocabulary.eos());
  return vars;
}

std::string render_chat(const ChatTemplate& chat_template, const ChatInput& input,
                        const Vocabulary& vocabulary) {
  return chat_template.render(template_variables(input, vocabulary));
}

std::vector<TokenId> encode_chat(const ChatTemplate& chat_template, const ChatInput& input,
                                 const Tokenizer& tokenizer) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  const ControlTokens control(vocabulary);
  bool any = false;
  const ChatInput broken = marked(input, control, any);
  const std::string text = render_chat(chat_template, broken, vocabulary);
  std::vector<TokenId> ids;
  if (any) {
    if (without_marks(text) != without_marks(render_chat(chat_template, input, vocabulary)))
      throw_error(
          ErrorKind::bad_input,
          "the chat template treats a control token that a message spells out in a way of its own; take the "
          "control tokens out of the messages");
    ids = encode_marked(text, control, tokenizer);
  } else {
    ids = tokenizer.encode(text, {.add_special = false, .parse_special = true});
  }
  if (vocabulary.add_bos() && vocabulary.bos() != kNoToken &&
      (ids.empty() || ids.front() != vocabulary.bos()))
    ids.insert(ids.begin(), vocabulary.bos());
  return ids;
}

TemplateAbilities template_abilities(std::string_view source) {
  const auto mentions = [&](std::string_view word) { return source.find(word) != std::string_view::npos; };
  return {.tools = mentions("tools"),
          .thinking = mentions("enable_thinking") || mentions("reasoning_content") || mentions("<think>")};
}

}  // namespace steelyard
