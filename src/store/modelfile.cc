#include "store/modelfile.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "base/readable.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kQuotes = "\"\"\"";

struct Refused {
  std::string_view name, why;
};
constexpr Refused kRefused[] = {
    {"adapter", "adapters (LoRA) can't be applied yet"},
    {"renderer", "prompts are made by the chat template alone: leave it out"},
    {"parser", "answers are read in the form that the chat template has: leave it out"},
    {"draft", "draft models can't be used yet"},
    {"requires", "it names a version of Ollama: leave it out"},
};

// An instruction and its argument, as it stands.
struct Instruction {
  std::size_t line;
  std::string name, argument;
};

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r"), end = text.find_last_not_of(" \t\r");
  return begin == text.npos ? std::string_view() : text.substr(begin, end - begin + 1);
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  std::vector<Instruction> all() {
    std::vector<Instruction> found;
    while (at_ < text_.size()) {
      const std::size_t number = ++line_;
      const std::string_view line = trimmed(next_line());
      if (line.empty() || line.starts_with('#')) continue;
      const std::size_t space = line.find_first_of(" \t");
      Instruction i{number, std::string(line.substr(0, space)), ""};
      for (char& c : i.name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      std::string_view rest = space == line.npos ? std::string_view() : trimmed(line.substr(space));
      if (i.name == "message" || i.name == "parameter") {  // a word comes before the text
        const std::size_t end = std::min(rest.find_first_of(" \t"), rest.size());
        i.argument = std::string(rest.substr(0, end)) + ' ';
        rest = trimmed(rest.substr(end));
      }
      i.argument += value(rest, number);
      found.push_back(std::move(i));
    }
    return found;
  }

 private:
  std::string_view next_line() {
    const std::size_t end = std::min(text_.find('\n', at_), text_.size());
    const std::string_view line = text_.substr(at_, end - at_);
    at_ = end + 1;
    return line;
  }
  // Text between quotes, which may have several lines; else the rest of the line.
  std::string value(std::string_view rest, std::size_t number) {
    if (rest.starts_with(kQuotes)) {
      const auto begin = static_cast<std::size_t>(rest.data() - text_.data()) + kQuotes.size();
      const std::size_t end = text_.find(kQuotes, begin);
      if (end == text_.npos)
        throw_error(ErrorKind::bad_input, "line {} of the Modelfile: the text has no \"\"\" at its end",
                    number);
      line_ += static_cast<std::size_t>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(begin),
                                                   text_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
      at_ = end + kQuotes.size();
      next_line();
      return std::string(text_.substr(begin, end - begin));
    }
    if (rest.size() >= 2 && rest.front() == '"' && rest.back() == '"') {
      const Json text = Json::parse(rest, nullptr, false);
      return text.is_string() ? text.get<std::string>() : std::string(rest.substr(1, rest.size() - 2));
    }
    return std::string(rest);
  }

  std::string_view text_;
  std::size_t at_ = 0, line_ = 0;
};

Json value_of(const std::string& text) {
  if (text == "true" || text == "false") return text == "true";
  std::int64_t whole = 0;
  double number = 0;
  const char* end = text.data() + text.size();
  if (const auto r = std::from_chars(text.data(), end, whole); r.ec == std::errc() && r.ptr == end)
    return whole;
  if (const auto r = std::from_chars(text.data(), end, number); r.ec == std::errc() && r.ptr == end)
    return number;
  return text;
}

// "word rest" → both
std::pair<std::string, std::string> first_word(const std::string& text) {
  const std::size_t space = std::min(text.find(' '), text.size());
  return {text.substr(0, space), text.substr(std::min(space + 1, text.size()))};
}

void take(Modelfile& m, const Instruction& i) {
  const auto wrong = [&](std::string_view why) {
    throw_error(ErrorKind::bad_input, "line {} of the Modelfile: {}", i.line, why);
  };
  for (const Refused& r : kRefused)
    if (r.name == i.name)
      throw_error(ErrorKind::unsupported, "line {} of the Modelfile: {} isn't supported: {}", i.line, i.name,
                  r.why);
  if (i.name == "from") {
    if (i.argument.empty() || !m.from.empty()) wrong("FROM wants one file or model");
    m.from = i.argument;
  } else if (i.name == "template") {
    m.chat_template = i.argument;
  } else if (i.name == "system") {
    m.system = i.argument;
  } else if (i.name == "license") {
    m.licenses.push_back(i.argument);
  } else if (i.name == "message") {
    auto [role, content] = first_word(i.argument);
    if (role != "user" && role != "assistant" && role != "system")
      wrong("a MESSAGE is of user, assistant or system");
    m.messages.push_back({{"role", role}, {"content", content}});
  } else if (i.name == "parameter") {
    auto [name, value] = first_word(i.argument);
    if (name.empty() || value.empty()) wrong("a PARAMETER has a name and a value");
    if (name == "stop")
      m.parameters[name].push_back(value);
    else
      m.parameters[name] = value_of(value);
  } else {
    wrong(fmt::format("there is no instruction '{}'", readable(i.name, 40)));
  }
}

}  // namespace

Modelfile parse_modelfile(std::string_view text) {
  Modelfile m;
  for (const Instruction& i : Reader(text).all()) take(m, i);
  if (m.from.empty()) throw Error(ErrorKind::bad_input, "the Modelfile has no FROM");
  return m;
}

}  // namespace steelyard
