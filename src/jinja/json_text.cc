// json.dumps as transformers' tojson calls it.
#include <algorithm>
#include <cmath>

#include "jinja/interpreter.h"
#include "jinja/python_text.h"

namespace steelyard::jinja {

namespace {

class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonStyle& style) : heap_(heap), style_(style) {}

  void write(const Value& value, int depth) {
    if (depth > kMaxValueDepth) fail("a value is nested too deeply for tojson");
    heap_.step();
    heap_.expect(out.size());
    switch (value.kind()) {
      case Kind::none:
        out += "null";
        break;
      case Kind::boolean:
        out += value.integer() ? "true" : "false";
        break;
      case Kind::integer:
        out += std::to_string(value.integer());
        break;
      case Kind::real:
        out += number(value.number());
        break;
      case Kind::string:
        quote(value.text());
        break;
      case Kind::list:
      case Kind::tuple:
        array(value.items(), depth);
        break;
      case Kind::dict:
        object(value.dict(), depth);
        break;
      default:
        fail("Object of type {} is not JSON serializable", type_name(value));
    }
  }

  std::string out;

 private:
  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return repr_of(value);
  }

  void line(int depth) {
    if (!style_.indent) return;
    out += '\n';
    heap_.step(static_cast<std::size_t>(depth) * (1 + style_.indent->size() / 64));
    heap_.expect(out.size() + style_.indent->size() * static_cast<std::size_t>(depth));
    for (int i = 0; i < depth; ++i) out += *style_.indent;
  }

  void array(const std::vector<Value>& items, int depth) {
    out += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      line(depth + 1);
      write(items[i], depth + 1);
    }
    if (!items.empty()) line(depth);
    out += ']';
  }

  std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::string:
        return std::string(key.text());
      case Kind::none:
        return "null";
      case Kind::boolean:
        return key.integer() ? "true" : "false";
      case Kind::integer:
        return std::to_string(key.integer());
      case Kind::real:
        return number(key.number());
      default:
        fail("keys must be str, int, float, bool or None, not {}", type_name(key));
    }
  }

  void object(const DictObject& dict, int depth) {
    auto items = dict.items;
    heap_.step(items.size());
    if (style_.sort_keys)
      std::stable_sort(items.begin(), items.end(),
                       [&](const auto& a, const auto& b) { return compare(heap_, a.first, b.first) == -1; });
    out += '{';
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      line(depth + 1);
      quote(key_text(items[i].first));
      out += style_.key_separator;
      write(items[i].second, depth + 1);
    }
    if (!items.empty()) line(depth);
    out += '}';
  }

  void unicode_escape(std::uint32_t code) { out += fmt::format("\\u{:04x}", code); }

  void quote(std::string_view text) {
    heap_.step(text.size() / 8);
    heap_.expect(out.size() + text.size());
    out += '"';
    for (std::size_t at = 0, length; at < text.size(); at += length) {
      std::uint32_t code = char_at(text, at, &length);
      static constexpr std::string_view kPlain = "\"\\\n\r\t\b\f", kNamed = "\"\\nrtbf";
      std::size_t named = code < 0x80 ? kPlain.find(static_cast<char>(code)) : std::string_view::npos;
      if (named != std::string_view::npos) {
        out += '\\';
        out += kNamed[named];
      } else if (code < 0x20) {
        unicode_escape(code);
      } else if (style_.ascii && code >= 0x7F + 1u) {
        if (code >= 0x10000) {
          unicode_escape(0xD800 + ((code - 0x10000) >> 10));
          unicode_escape(0xDC00 + ((code - 0x10000) & 0x3FF));
        } else {
          unicode_escape(code);
        }
      } else {
        out += text.substr(at, length);
      }
    }
    out += '"';
  }

  Heap& heap_;
  const JsonStyle& style_;
};

}  // namespace

std::string to_json(Heap& heap, const Value& value, const JsonStyle& style) {
  JsonWriter writer(heap, style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace steelyard::jinja
