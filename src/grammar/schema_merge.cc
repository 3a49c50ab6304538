#include "grammar/schema_merge.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/error.h"

namespace steelyard::schema {
namespace {

constexpr std::string_view kAnnotations[] = {
    "title", "description", "default",    "examples", "example",   "$schema", "$id",          "$comment",
    "$defs", "definitions", "deprecated", "readOnly", "writeOnly", "$anchor", "discriminator"};

[[noreturn]] void cant_merge(const std::string& keyword) {
  throw_error(ErrorKind::unsupported,
              "the schema says \"{}\" twice of one value (through allOf, anyOf, oneOf or $ref), "
              "which isn't supported",
              keyword);
}

Json as_list(const Json& types) { return types.is_array() ? types : Json::array({types}); }

Json types_of_both(const Json& a, const Json& b) {
  Json out = Json::array();
  for (const Json& x : as_list(a))
    for (const Json& y : as_list(b)) {
      if (x == y)
        out.push_back(x);
      else if ((x == "integer" && y == "number") || (x == "number" && y == "integer"))
        out.push_back("integer");
    }
  return out;
}

Json values_of_both(const Json& a, const Json& b) {
  Json out = Json::array();
  for (const Json& x : a)
    if (std::ranges::find(b, x) != b.end()) out.push_back(x);
  return out;
}

bool contains(std::initializer_list<std::string_view> list, std::string_view word) {
  return std::ranges::find(list, word) != list.end();
}

Json merged_properties(const Json& a, const Json& b) {
  Json out = a;
  for (const auto& [name, schema] : b.items()) {
    if (out.contains(name))
      out[name] = Json{{"allOf", Json::array({out[name], schema})}};
    else
      out[name] = schema;
  }
  return out;
}

Json merged_value(const std::string& key, const Json& a, const Json& b) {
  if (a == b) return a;
  if (key == "type") return types_of_both(a, b);
  if (key == "enum" && a.is_array() && b.is_array()) return values_of_both(a, b);
  if (key == "properties" && a.is_object() && b.is_object()) return merged_properties(a, b);
  if (key == "items" && a.is_object() && b.is_object()) return Json{{"allOf", Json::array({a, b})}};
  if (key == "allOf" || (key == "required" && a.is_array() && b.is_array())) {
    Json out = a;
    for (const Json& x : b) out.push_back(x);
    return out;
  }
  if (a.is_number() && b.is_number()) {
    const bool a_less = a.get<double>() < b.get<double>();
    if (contains({"minimum", "exclusiveMinimum", "minLength", "minItems"}, key)) return a_less ? b : a;
    if (contains({"maximum", "exclusiveMaximum", "maxLength", "maxItems"}, key)) return a_less ? a : b;
  }
  cant_merge(key);
}

// Each is about the properties of its own schema alone.
bool limits_properties(const Json& s) {
  const auto more = s.find("additionalProperties");
  return more != s.end() && *more != Json(true);
}

Json values_of(const Json& s) {
  if (const auto c = s.find("const"); c != s.end()) return Json::array({*c});
  if (const auto e = s.find("enum"); e != s.end() && e->is_array()) return *e;
  return nullptr;
}

bool disjoint_types(const Json& a, const Json& b) {
  return a.contains("type") && b.contains("type") && types_of_both(a["type"], b["type"]).empty();
}

bool requires_property(const Json& s, const std::string& name) {
  const auto r = s.find("required");
  return r != s.end() && r->is_array() && std::ranges::find(*r, Json(name)) != r->end();
}

// Two objects of which one property, which both must have, says which it is.
bool disjoint_property(const Json& a, const Json& b) {
  if (!a.contains("properties") || !b.contains("properties") || !a["properties"].is_object() ||
      !b["properties"].is_object())
    return false;
  for (const auto& [name, its] : a["properties"].items()) {
    const auto other = b["properties"].find(name);
    if (other == b["properties"].end() || !requires_property(a, name) || !requires_property(b, name))
      continue;
    if (!its.is_object() || !other->is_object()) continue;
    if (disjoint(its, *other)) return true;
  }
  return false;
}

// `a` needs a property that `b` forbids.
bool needs_forbidden(const Json& a, const Json& b) {
  const auto more = b.find("additionalProperties"), required = a.find("required");
  if (a.value("type", Json()) != "object" || b.value("type", Json()) != "object") return false;
  if (more == b.end() || *more != Json(false) || required == a.end() || !required->is_array()) return false;
  const Json properties = b.value("properties", Json::object());
  return std::ranges::any_of(*required, [&](const Json& name) {
    return name.is_string() && !properties.contains(name.get_ref<const std::string&>());
  });
}

}  // namespace

bool is_annotation(std::string_view keyword) {
  return keyword.starts_with("x-") || std::ranges::find(kAnnotations, keyword) != std::end(kAnnotations);
}

bool is_of_type(const Json& v, std::string_view type) {
  if (type == "integer")
    return v.is_number_integer() || (v.is_number() && v.get<double>() == std::floor(v.get<double>()));
  if (type == "number") return v.is_number();
  if (type == "string") return v.is_string();
  if (type == "boolean") return v.is_boolean();
  if (type == "null") return v.is_null();
  if (type == "array") return v.is_array();
  return type == "object" && v.is_object();
}

bool may_be_of_type(const Json& types, std::string_view type) {
  const auto fits = [&](const Json& t) { return t == type || (t == "number" && type == "integer"); };
  return types.is_array() ? std::ranges::any_of(types, fits) : fits(types);
}

Json merged(const Json& a, const Json& b) {
  if (a.is_boolean()) return a == Json(true) ? b : a;
  if (b.is_boolean()) return b == Json(true) ? a : b;
  if (!a.is_object() || !b.is_object())
    throw_error(ErrorKind::bad_input,
                "the schema has something that is neither an object nor true or false in the "
                "place of a schema");
  if ((limits_properties(a) && b.contains("properties")) ||
      (limits_properties(b) && a.contains("properties")))
    if (a.value("properties", Json()) != b.value("properties", Json())) cant_merge("additionalProperties");
  Json out = a;
  for (const auto& [key, value] : b.items()) {
    if (is_annotation(key)) continue;
    out[key] = out.contains(key) ? merged_value(key, out[key], value) : value;
  }
  return out;
}

bool disjoint(const Json& a, const Json& b) {
  if (!a.is_object() || !b.is_object()) return false;
  if (disjoint_types(a, b)) return true;
  const Json mine = values_of(a), its = values_of(b);
  if (mine.is_array() && its.is_array()) return values_of_both(mine, its).empty();
  const auto none_of = [](const Json& values, const Json& s) {
    return values.is_array() && s.contains("type") && std::ranges::none_of(values, [&](const Json& v) {
             const Json types = as_list(s["type"]);
             return std::ranges::any_of(types, [&](const Json& t) {
               return t.is_string() && is_of_type(v, t.get_ref<const std::string&>());
             });
           });
  };
  if (none_of(mine, b) || none_of(its, a)) return true;
  const bool objects = a.value("type", Json()) == "object" && b.value("type", Json()) == "object";
  return objects && (disjoint_property(a, b) || (needs_forbidden(a, b) && needs_forbidden(b, a)));
}

}  // namespace steelyard::schema
