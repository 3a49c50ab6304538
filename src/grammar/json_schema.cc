#include "grammar/json_schema.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "grammar/json_text.h"
#include "grammar/schema_merge.h"

namespace steelyard {
namespace {

using schema::Json;
using Expr = GrammarBuilder::Expr;
constexpr std::uint32_t kUnbounded = GrammarBuilder::kUnbounded;
constexpr std::string_view kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};

struct Keyword {
  std::string_view name, type;  // of the values that it is about; empty: of all
};
constexpr Keyword kKeywords[] = {
    {"type", ""},
    {"enum", ""},
    {"const", ""},
    {"anyOf", ""},
    {"oneOf", ""},
    {"allOf", ""},
    {"$ref", ""},
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"items", "array"},
    {"prefixItems", "array"},
    {"minItems", "array"},
    {"maxItems", "array"},
    {"uniqueItems", "array"},
    {"minLength", "string"},
    {"maxLength", "string"},
    {"pattern", "string"},
    {"format", "string"},
    {"minimum", "number"},
    {"maximum", "number"},
    {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"},
};

const Json& find(const Json& object, const char* key) {
  static const Json kNothing;
  const auto it = object.find(key);
  return it == object.end() ? kNothing : *it;
}

class Writer {
 public:
  explicit Writer(const Json& root) : root_(root) {
    space_ = b_.new_rule();
    b_.define(space_,
              b_.optional(b_.choice(
                  {b_.literal(" "), b_.sequence({b_.literal("\n"), b_.repeat(b_.bytes(" \t"), 0, 32)})})));
    char_ = json_character(b_);
  }

  Grammar write() {
    const std::uint32_t rule = rule_of(root_);
    // Rules are written one after the other, so that no schema chooses how deep this recurses.
    while (!todo_.empty()) {
      const auto [schema, its] = todo_.front();
      todo_.pop_front();
      b_.define(its, value(*schema));
    }
    return b_.finish(rule);
  }

 private:
  [[noreturn]] static void refuse(std::string_view keyword, std::string_view why) {
    throw_error(ErrorKind::unsupported, "the schema's \"{}\" {}", keyword, why);
  }
  [[noreturn]] static void wrong(std::string_view keyword, std::string_view wanted) {
    throw_error(ErrorKind::bad_input, "the schema's \"{}\" must be {}", keyword, wanted);
  }

  std::uint32_t rule_of(const Json& schema) {
    const auto [entry, fresh] = rules_.try_emplace(&schema, 0);
    if (fresh) {
      entry->second = b_.new_rule();
      todo_.emplace_back(&schema, entry->second);
    }
    return entry->second;
  }
  Expr part(const Json& schema) { return b_.call(rule_of(schema)); }
  const Json& keep(Json schema) { return kept_.emplace_back(charged(std::move(schema))); }
  // What is put together is copied, and could grow without end.
  Json charged(Json schema) {
    charge(schema);
    return schema;
  }
  void charge(const Json& part) {
    constexpr std::size_t kMost = 200'000;
    if (++made_ > kMost)
      throw_error(ErrorKind::bad_input, "the schema is too large once its parts are put together");
    if (part.is_structured())
      for (const Json& inner : part) charge(inner);
  }
  Expr space() { return b_.call(space_); }
  Expr comma() { return b_.sequence({b_.literal(","), space()}); }
  Expr literal(const Json& value) { return b_.literal(value.dump()); }

  // ---- what a schema is made of ----

  void check_keywords(const Json& s) {
    for (const auto& [key, its] : s.items()) {
      if (schema::is_annotation(key)) continue;
      const bool known =
          std::ranges::find(kKeywords, std::string_view(key), &Keyword::name) != std::end(kKeywords);
      if (!known) refuse(key, "isn't supported: answers can't be held to it");
    }
    const Json& unique = find(s, "uniqueItems");
    if (unique == Json(true)) refuse("uniqueItems", "isn't supported: answers can't be held to it");
  }

  const Json& target(const Json& ref) {
    if (!ref.is_string()) wrong("$ref", "a string");
    const auto& text = ref.get_ref<const std::string&>();
    if (!text.starts_with('#')) refuse("$ref", "may only point into the schema itself (\"#/…\")");
    std::string pointer;
    for (std::size_t i = 1; i < text.size(); ++i) {
      unsigned code = 0;
      if (text[i] == '%' && i + 2 < text.size() &&
          std::sscanf(text.substr(i + 1, 2).c_str(), "%2x", &code) == 1)
        pointer += static_cast<char>(code), i += 2;
      else
        pointer += text[i];
    }
    try {
      return root_.at(Json::json_pointer(pointer));
    } catch (const Json::exception&) {
      throw_error(ErrorKind::bad_input, "the schema's \"$ref\" points to {}, which isn't there", text);
    }
  }

  Expr value(const Json& s) {
    if (s == Json(true)) return any();
    if (s == Json(false)) return b_.choice({});
    if (!s.is_object())
      throw_error(ErrorKind::bad_input, "the schema has a {} where a schema must be", s.type_name());
    check_keywords(s);
    for (const char* key : {"$ref", "allOf", "anyOf", "oneOf"})
      if (s.contains(key)) return combined(s, key);
    if (s.contains("const")) return fixed(s, Json::array({s["const"]}));
    if (s.contains("enum")) return fixed(s, s["enum"]);
    return by_type(s);
  }

  // What stands beside a combining keyword holds for each part too.
  Expr combined(const Json& s, const char* key) {
    Json rest = s;
    rest.erase(key);
    const bool alone =
        std::ranges::all_of(rest.items(), [](const auto& i) { return schema::is_annotation(i.key()); });
    if (key == std::string_view("$ref")) {
      const Json& to = target(s["$ref"]);
      return alone ? part(to) : joined(to, rest);
    }
    const Json& parts = s[key];
    if (!parts.is_array() || parts.empty()) wrong(key, "a list that isn't empty");
    if (key == std::string_view("allOf")) {
      Json all = std::move(rest);
      for (const Json& p : parts) all = charged(schema::merged(all, resolved(p)));
      return part(keep(std::move(all)));
    }
    if (key == std::string_view("oneOf")) check_apart(parts);
    std::vector<Expr> ways;
    for (const Json& p : parts) ways.push_back(alone ? part(p) : joined(p, rest));
    return b_.choice(ways);
  }

  Expr joined(const Json& a, const Json& b) { return part(keep(schema::merged(b, resolved(a)))); }

  // Without a $ref at its top, so that it can be put together with another.
  Json resolved(const Json& s) {
    Json out = charged(s);
    for (int i = 0; out.is_object() && out.contains("$ref"); ++i) {
      if (i == 32) throw_error(ErrorKind::bad_input, "the schema's \"$ref\"s lead to each other without end");
      const Json& to = target(out["$ref"]);
      out.erase("$ref");
      out = charged(schema::merged(out, to));
    }
    return out;
  }

  void check_apart(const Json& parts) {
    if (parts.size() > 200) refuse("oneOf", "has more than 200 alternatives");
    std::vector<Json> all;
    for (const Json& p : parts) all.push_back(resolved(p));
    for (std::size_t i = 0; i < all.size(); ++i)
      for (std::size_t k = 0; k < i; ++k)
        if (!schema::disjoint(all[i], all[k]))
          refuse("oneOf",
                 "has alternatives that a value may satisfy both: use \"anyOf\", or a constant that tells "
                 "them apart");
  }

  Expr fixed(const Json& s, const Json& values) {
    if (!values.is_array() || values.empty()) wrong("enum", "a list that isn't empty");
    for (const auto& [key, its] : s.items())
      if (key != "enum" && key != "const" && key != "type" && !schema::is_annotation(key))
        refuse(key, "isn't supported beside \"enum\" or \"const\"");
    if (s.contains("enum") && s.contains("const")) refuse("enum", "isn't supported beside \"const\"");
    std::vector<Expr> ways;
    for (const Json& v : values) {
      const bool fits = !s.contains("type") || std::ranges::any_of(types_of(s), [&](std::string_view t) {
        return schema::is_of_type(v, t);
      });
      if (fits) ways.push_back(literal(v));
    }
    return b_.choice(ways);
  }

  // The types that are asked for; without any, those that some keyword is about.
  std::vector<std::string_view> types_of(const Json& s) {
    std::vector<std::string_view> types;
    const Json& wanted = find(s, "type");
    if (!wanted.is_null()) {
      const Json list = wanted.is_array() ? wanted : Json::array({wanted});
      for (const Json& t : list) {
        const auto known =
            t.is_string() ? std::ranges::find(kTypes, t.get_ref<const std::string&>()) : std::end(kTypes);
        if (known == std::end(kTypes))
          wrong("type", "one or more of object, array, string, number, integer, boolean, null");
        types.push_back(*known);
      }
      return types;
    }
    for (const Keyword& k : kKeywords)
      if (!k.type.empty() && s.contains(k.name) && std::ranges::find(types, k.type) == types.end())
        types.push_back(k.type);
    return types;
  }

  Expr by_type(const Json& s) {
    const auto types = types_of(s);
    if (types.empty() && !s.contains("type")) return any();
    std::vector<Expr> ways;
    for (const std::string_view t : types) {
      if (t == "object") ways.push_back(object(s));
      if (t == "array") ways.push_back(array(s));
      if (t == "string") ways.push_back(string(s));
      if (t == "integer") ways.push_back(json_integer(b_, limits(s)));
      if (t == "number") ways.push_back(json_number(b_, limits(s)));
      if (t == "boolean") ways.push_back(b_.choice({b_.literal("true"), b_.literal("false")}));
      if (t == "null") ways.push_back(b_.literal("null"));
    }
    return b_.choice(ways);
  }

  Expr any() {
    if (!any_) {
      any_ = b_.new_rule();
      static const Json kAll = {
          {"type", Json::array({"object", "array", "string", "number", "boolean", "null"})}};
      b_.define(*any_, by_type(kAll));
    }
    return b_.call(*any_);
  }

  // ---- numbers and strings ----

  std::optional<double> number(const Json& s, const char* key) {
    const Json& v = find(s, key);
    if (v.is_null()) return std::nullopt;
    if (!v.is_number()) wrong(key, "a number");
    return v.get<double>();
  }
  NumberLimits limits(const Json& s) {
    NumberLimits l{.least = number(s, "minimum"), .most = number(s, "maximum")};
    if (const auto x = number(s, "exclusiveMinimum"); x && !(l.least && *l.least > *x))
      l.least = x, l.above = true;
    if (const auto x = number(s, "exclusiveMaximum"); x && !(l.most && *l.most < *x))
      l.most = x, l.below = true;
    return l;
  }

  std::uint32_t count(const Json& s, const char* key, std::uint32_t otherwise) {
    const auto x = number(s, key);
    if (!x) return otherwise;
    if (*x < 0 || *x != std::floor(*x)) wrong(key, "a whole number that isn't negative");
    if (*x > 100'000) refuse(key, "may be 100000 at most");
    return static_cast<std::uint32_t>(*x);
  }

  Expr quoted(Expr text) { return b_.sequence({b_.literal("\""), text, b_.literal("\"")}); }

  Expr string(const Json& s) {
    const bool sized = s.contains("minLength") || s.contains("maxLength");
    const bool pattern = s.contains("pattern"), format = s.contains("format");
    if (pattern + format + sized > 1)
      refuse(format ? "format" : "pattern", "isn't supported beside another keyword about the same string");
    if (pattern && !s["pattern"].is_string()) wrong("pattern", "a string");
    if (pattern) return quoted(json_pattern(b_, s["pattern"].get_ref<const std::string&>()));
    if (format) {
      if (!s["format"].is_string()) wrong("format", "a string");
      const auto& name = s["format"].get_ref<const std::string&>();
      const auto text = json_format(b_, name);
      if (!text) refuse("format", fmt::format("may not be \"{}\": that format isn't known here", name));
      return quoted(*text);
    }
    const std::uint32_t least = count(s, "minLength", 0), most = count(s, "maxLength", kUnbounded);
    if (least > most)
      throw_error(ErrorKind::bad_input, "the schema's \"minLength\" is more than its \"maxLength\"");
    return quoted(b_.repeat(char_, least, most));
  }

  // ---- lists ----

  Expr array(const Json& s) {
    const Json &prefix = find(s, "prefixItems"), &items = find(s, "items");
    if (!prefix.is_null() && !prefix.is_array()) wrong("prefixItems", "a list");
    if (items.is_array()) refuse("items", "may not be a list: use \"prefixItems\"");
    const std::uint32_t least = count(s, "minItems", 0), most = count(s, "maxItems", kUnbounded);
    if (least > most)
      throw_error(ErrorKind::bad_input, "the schema's \"minItems\" is more than its \"maxItems\"");
    const auto first = static_cast<std::uint32_t>(std::min<std::size_t>(prefix.size(), most));
    std::vector<Expr> parts;
    for (std::uint32_t i = 0; i < first; ++i) {
      if (i > 0) parts.push_back(comma());
      parts.push_back(part(prefix[i]));
    }
    const bool none = items == Json(false) || (items.is_null() && first > 0 && least <= first);
    const Expr item = items.is_null() ? any() : part(items);
    const std::uint32_t more_least = least > first ? least - first : 0;
    const std::uint32_t more_most = none ? 0 : most == kUnbounded ? kUnbounded : most - first;
    if (more_least > more_most) return b_.choice({});
    const Expr next = b_.sequence({comma(), item});
    if (first > 0)
      parts.push_back(b_.repeat(next, more_least, more_most));
    else if (more_most > 0)
      parts.insert(parts.end(), {item, b_.repeat(next, std::max(more_least, 1u) - 1,
                                                 more_most == kUnbounded ? kUnbounded : more_most - 1)});
    return enclosed("[", "]", parts, least == 0 && first == 0);
  }

  // Without any parts only where that is allowed.
  Expr enclosed(std::string_view open, std::string_view close, const std::vector<Expr>& parts,
                bool may_be_empty) {
    std::vector<Expr> ways;
    if (may_be_empty) ways.push_back(b_.literal(close));
    if (!parts.empty())
      ways.push_back(b_.sequence({space(), b_.sequence(parts), space(), b_.literal(close)}));
    return b_.sequence({b_.literal(open), b_.choice(ways)});
  }

  // ---- objects ----

  struct Member {
    Expr pair;
    bool required;
  };

  Expr pair(Expr key, Expr value) {
    return b_.sequence({key, b_.literal(":"), b_.optional(b_.literal(" ")), value});
  }

  bool is_required(const Json& s, std::string_view name) {
    const Json& required = find(s, "required");
    return std::ranges::any_of(required, [&](const Json& r) { return r == name; });
  }

  std::vector<Member> members(const Json& s, const Json& more) {
    static const Json kNone = Json::object();
    const Json& required = find(s, "required");
    if (!required.is_null() &&
        (!required.is_array() || !std::ranges::all_of(required, [](const Json& r) { return r.is_string(); })))
      wrong("required", "a list of strings");
    const Json& properties = s.contains("properties") ? s["properties"] : kNone;
    if (!properties.is_object()) wrong("properties", "an object");
    std::vector<Member> all;
    for (const auto& [name, its] : properties.items()) {
      const bool needed = is_required(s, name);
      if (its == Json(false) && !needed) continue;
      all.push_back({pair(literal(name), part(its)), needed});
    }
    std::vector<Json> named;
    for (const Json& r : required) {
      if (properties.contains(r.get_ref<const std::string&>()) || std::ranges::find(named, r) != named.end())
        continue;
      named.push_back(r);
      if (more == Json(false))
        throw_error(ErrorKind::bad_input, "the schema requires {}, but allows no such property", r.dump());
      all.push_back({pair(literal(r), more.is_null() ? any() : part(more)), true});
    }
    return all;
  }

  // Keys that are none of those the schema names, spelt without escapes.
  Expr other_key(const Json& s) {
    std::vector<std::string> names;
    for (const auto& [name, its] : find(s, "properties").items()) names.push_back(name);
    for (const Json& r : find(s, "required")) names.push_back(r.get<std::string>());
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return quoted(none_of(names, 0, names.size(), 0));
  }

  // Strings that begin as names[first … last) do, which agree on `at` bytes, and are none of them.
  Expr none_of(const std::vector<std::string>& names, std::size_t first, std::size_t last, std::size_t at) {
    if (at > 200)
      refuse("properties",
             "has a name of more than 200 bytes, which isn't supported beside \"additionalProperties\"");
    const Expr plain = b_.character({{0x20, 0x21}, {0x23, 0x5b}, {0x5d, 0x10ffff}});
    const Expr rest = b_.repeat(plain, 0, 64);
    std::vector<Expr> ways;
    if (first == last) return rest;
    if (names[first].size() > at) ways.push_back(b_.empty());  // a name's beginning is none
    ByteSet followed;
    for (std::size_t i = first; i < last;) {
      if (names[i].size() == at) {
        ++i;
        continue;
      }
      const char c = names[i][at];
      std::size_t end = i;
      while (end < last && names[end].size() > at && names[end][at] == c) ++end;
      followed.set(static_cast<unsigned char>(c));
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte < 0x80 && c != '"' && c != '\\')
        ways.push_back(b_.sequence({b_.literal(std::string_view(&c, 1)), none_of(names, i, end, at + 1)}));
      i = end;
    }
    // Names that aren't ASCII: no other key goes on with any such character there.
    GrammarBuilder::Ranges others;
    for (std::uint32_t c = 0x20; c < 0x80; ++c)
      if (c != '"' && c != '\\' && !followed[c]) others.emplace_back(c, c);
    if ((followed >> 0x80).none()) others.emplace_back(0x80, 0x10ffff);
    ways.push_back(b_.sequence({b_.character(others), rest}));
    return b_.choice(ways);
  }

  // Members in order, from the last to the first: what may follow a member (a comma first), and what may
  // follow none (no comma yet).
  Expr object(const Json& s) {
    const Json& said = find(s, "additionalProperties");
    if (!said.is_null() && !said.is_boolean() && !said.is_object())
      wrong("additionalProperties", "a schema, true or false");
    const bool open = said.is_null() ? !s.contains("properties") : said != Json(false);
    const std::vector<Member> all = members(s, said);
    Expr after = b_.empty(), begin = b_.choice({});
    bool may_be_empty = true;
    if (open) {
      const Expr more = pair(other_key(s), said.is_null() || said.is_boolean() ? any() : part(said));
      after = b_.repeat(b_.sequence({comma(), more}), 0, kUnbounded);
      begin = b_.sequence({more, after});
    }
    for (auto m = all.rbegin(); m != all.rend(); ++m) {
      const std::uint32_t after_rule = b_.new_rule(), begin_rule = b_.new_rule();
      const Expr next = b_.sequence({comma(), m->pair, after}), first = b_.sequence({m->pair, after});
      b_.define(after_rule, m->required ? next : b_.choice({next, after}));
      b_.define(begin_rule, m->required ? first : b_.choice({first, begin}));
      after = b_.call(after_rule), begin = b_.call(begin_rule);
      may_be_empty &= !m->required;
    }
    if (all.empty() && !open) return b_.sequence({b_.literal("{"), b_.literal("}")});
    return enclosed("{", "}", {begin}, may_be_empty);
  }

  const Json& root_;
  GrammarBuilder b_;
  std::uint32_t space_ = 0;
  Expr char_ = 0;
  std::optional<std::uint32_t> any_;
  std::map<const Json*, std::uint32_t> rules_;
  std::deque<std::pair<const Json*, std::uint32_t>> todo_;
  std::deque<Json> kept_;  // stays where it is
  std::size_t made_ = 0;   // values in all that was put together
};

}  // namespace

Grammar json_grammar() {
  static const Json kObject = {{"type", "object"}};
  return Writer(kObject).write();
}

Grammar schema_grammar(const Json& schema) { return Writer(schema).write(); }

}  // namespace steelyard
