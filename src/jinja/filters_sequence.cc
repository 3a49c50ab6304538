// Filters on sequences and mappings.
#include <algorithm>

#include "jinja/interpreter.h"
#include "jinja/python_text.h"
#include "jinja/tables.h"

namespace steelyard::jinja {

namespace {

// "a.b.0" as the keys to follow from an item; digits are positions.
std::vector<Value> path_of(Interpreter& in, const Value& attribute) {
  if (!attribute.is(Kind::string)) return {attribute};
  std::vector<Value> path;
  std::string_view rest = attribute.text();
  while (true) {
    std::size_t dot = std::min(rest.find('.'), rest.size());
    std::string_view part = rest.substr(0, dot);
    bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    auto index = digits ? parse_int(part, 10) : std::nullopt;
    path.push_back(index ? Value::integer(*index) : in.heap().string(std::string(part)));
    if (dot == rest.size()) return path;
    rest.remove_prefix(dot + 1);
  }
}

Value follow(Interpreter& in, Value item, const std::vector<Value>& path, const Value* otherwise = nullptr) {
  for (const Value& key : path) {
    in.heap().step();
    item = in.item(item, key);
    if (otherwise != nullptr && item.is(Kind::undefined)) item = *otherwise;
  }
  return item;
}

Value lower_text(Interpreter& in, const Value& value) {
  if (!value.is(Kind::string)) return value;
  in.heap().classify_bytes(value.text().size());
  return in.heap().string(to_lower(value.text()));
}

// Keys that sorting and comparing filters take of items.
class KeyMaker {
 public:
  KeyMaker(Interpreter& in, const Value* attribute, bool case_sensitive)
      : in_(in), sensitive_(case_sensitive) {
    if (attribute && !attribute->is(Kind::none)) path_ = path_of(in, *attribute);
  }
  Value operator()(const Value& item, const Value* otherwise = nullptr) const {
    Value key = follow(in_, item, path_, otherwise);
    return sensitive_ ? key : lower_text(in_, key);
  }

 private:
  Interpreter& in_;
  bool sensitive_;
  std::vector<Value> path_;
};

struct Keyed {
  std::vector<Value> keys;
  Value item;
};

// sorted(key=…): stable; `reverse` keeps equal items in order, too. `listed`: the keys are lists to Python,
// whose equal items are passed over even when they have no order.
void sort_keyed(Interpreter& in, std::vector<Keyed>& items, bool reverse, bool listed) {
  Heap& heap = in.heap();
  heap.charge(items.size() * sizeof(Keyed));
  auto before = [listed, &heap](const Keyed& a, const Keyed& b) {
    if (!listed) return compare(heap, a.keys[0], b.keys[0]) == -1;
    for (std::size_t i = 0; i < a.keys.size() && i < b.keys.size(); ++i)
      if (!equals(heap, a.keys[i], b.keys[i])) return compare(heap, a.keys[i], b.keys[i]) == -1;
    return false;
  };
  std::stable_sort(items.begin(), items.end(),
                   [&](const Keyed& a, const Keyed& b) { return reverse ? before(b, a) : before(a, b); });
}

Value items_of(Interpreter& in, const std::vector<Keyed>& items) {
  std::vector<Value> out;
  for (const Keyed& each : items) out.push_back(each.item);
  return in.heap().list(std::move(out));
}

Value sort(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<KeyMaker> makers;  // one for each attribute of "a,b"
  if (p[2] && p[2]->is(Kind::string)) {
    std::string_view rest = p[2]->text();
    while (true) {
      std::size_t comma = std::min(rest.find(','), rest.size());
      Value part = in.heap().string(std::string(rest.substr(0, comma)));
      makers.emplace_back(in, &part, p.flag(1, false));
      if (comma == rest.size()) break;
      rest.remove_prefix(comma + 1);
    }
  } else {
    makers.emplace_back(in, p[2], p.flag(1, false));
  }
  std::vector<Keyed> items;
  for (const Value& item : to_vector(in.heap(), self)) {
    items.push_back({{}, item});
    for (const KeyMaker& maker : makers) items.back().keys.push_back(maker(item));
  }
  sort_keyed(in, items, p.flag(0, false), true);
  return items_of(in, items);
}

Value dict_sort(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  require_defined(self);
  if (!self.is(Kind::dict)) fail("'{}' object has no attribute 'items'", type_name(self));
  std::string by = p[1] ? in.text_of(*p[1]) : "key";
  if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> items;
  for (const auto& [key, value] : self.dict().items) {
    Value taken = by == "key" ? key : value;
    if (!p.flag(0, false)) taken = lower_text(in, taken);
    items.push_back({{taken}, in.heap().list({key, value}, Kind::tuple)});
  }
  sort_keyed(in, items, p.flag(2, false), false);
  return items_of(in, items);
}

Value unique(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("unique", arguments, {"case_sensitive", "attribute"});
  KeyMaker maker(in, p[1], p.flag(0, false));
  DictObject* seen = in.heap().new_dict();
  std::vector<Value> out;
  for (const Value& item : to_vector(in.heap(), self)) {
    Value key = maker(item);
    hash_of(in.heap(), key);
    if (seen->find(in.heap(), key) != nullptr) continue;
    in.heap().charge(2 * sizeof(Value));
    seen->set(in.heap(), key, Value::none());
    out.push_back(item);
  }
  return in.heap().iterator(std::move(out));
}

template <int wanted>
Value extreme(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("min", arguments, {"case_sensitive", "attribute"});
  KeyMaker maker(in, p[1], p.flag(0, false));
  std::vector<Value> items = to_vector(in.heap(), self);
  if (items.empty()) return in.heap().undefined("No aggregated item, sequence was empty.");
  Value best = items[0], best_key = maker(best);
  for (std::size_t i = 1; i < items.size(); ++i) {
    Value key = maker(items[i]);
    if (compare(in.heap(), key, best_key) != wanted) continue;
    best = items[i];
    best_key = key;
  }
  return best;
}

Value group_by(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("groupby", arguments, {"attribute", "default", "case_sensitive"});
  p.require(0);
  bool sensitive = p.flag(2, false);
  KeyMaker maker(in, p[0], sensitive), exact(in, p[0], true);
  std::vector<Keyed> items;
  for (const Value& item : to_vector(in.heap(), self)) items.push_back({{maker(item, p[1])}, item});
  sort_keyed(in, items, false, false);
  std::vector<Value> groups;
  for (std::size_t i = 0; i < items.size();) {
    std::vector<Value> members;
    std::size_t first = i;
    for (; i < items.size() && equals(in.heap(), items[i].keys[0], items[first].keys[0]); ++i)
      members.push_back(items[i].item);
    Value grouper = sensitive ? items[first].keys[0] : exact(items[first].item, p[1]);
    Value group = in.heap().list({grouper, in.heap().list(std::move(members))}, Kind::tuple);
    static_cast<SequenceObject*>(group.object())->group = true;
    groups.push_back(group);
  }
  return in.heap().list(std::move(groups));
}

Value sum(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("sum", arguments, {"attribute", "start"});
  KeyMaker maker(in, p[0], true);
  Value total = p[1] ? *p[1] : Value::integer(0);
  if (total.is(Kind::string)) fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : to_vector(in.heap(), self)) total = binary(in, Operator::add, total, maker(item));
  return total;
}

Value join(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("join", arguments, {"d", "attribute"});
  KeyMaker maker(in, p[1], true);
  std::string out, separator = p[0] ? in.text_of(*p[0]) : "";
  bool first = true;
  Cursor cursor(in.heap(), self);
  for (Value item; cursor.next(item); first = false) {
    if (!first) {
      in.heap().expect(out.size() + separator.size());
      in.heap().copy_bytes(separator.size());
      out += separator;
    }
    append_text(in.heap(), out, maker(item));
  }
  return in.heap().string(std::move(out));
}

// ------------------------------------------------------------------------------------ map, select and reject

// The named arguments after the first `skip` positional ones.
Arguments rest_of(Interpreter& in, const Arguments& arguments, std::size_t skip) {
  in.heap().step(arguments.positional.size() + arguments.named.size());
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(skip),
                         arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

Value map_attribute(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Value *attribute = nullptr, *otherwise = nullptr;
  for (const auto& [name, value] : arguments.named) {
    if (name != "attribute" && name != "default") fail("Unexpected keyword argument {}", repr_cut(name));
    (name == "attribute" ? attribute : otherwise) = &value;
  }
  if (attribute == nullptr) fail("map requires a filter argument");
  std::vector<Value> path = path_of(in, *attribute), out;
  for (const Value& item : to_vector(in.heap(), self)) out.push_back(follow(in, item, path, otherwise));
  return in.heap().iterator(std::move(out));
}

Value map(Interpreter& in, const Value& self, Arguments& arguments) {
  if (!truth(self)) return in.heap().iterator({});
  if (arguments.positional.empty()) return map_attribute(in, self, arguments);
  std::string name = in.text_of(arguments.positional[0]);
  std::vector<Value> out;
  for (const Value& item : to_vector(in.heap(), self)) {
    Arguments rest = rest_of(in, arguments, 1);
    out.push_back(in.filter(name, item, rest));
  }
  return in.heap().iterator(std::move(out));
}

template <bool keep, bool by_attribute>
Value select(Interpreter& in, const Value& self, Arguments& arguments) {
  std::vector<Value> out, path;
  if (!truth(self)) return in.heap().iterator({});
  std::size_t skip = by_attribute ? 1 : 0;
  if (by_attribute) {
    if (arguments.positional.empty()) fail("Missing parameter for attribute name");
    path = path_of(in, arguments.positional[0]);
  }
  bool tested = arguments.positional.size() > skip;
  std::string name = tested ? in.text_of(arguments.positional[skip]) : "";
  for (const Value& item : to_vector(in.heap(), self)) {
    Value looked_at = by_attribute ? follow(in, item, path) : item;
    bool holds;
    if (tested) {
      Arguments rest = rest_of(in, arguments, skip + 1);
      holds = in.test(name, looked_at, rest);
    } else {
      holds = truth(looked_at);
    }
    if (holds == keep) out.push_back(item);
  }
  return in.heap().iterator(std::move(out));
}

// ---------------------------------------------------------------------------------------------------- access

Value first(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("first", arguments, {});
  Cursor cursor(in.heap(), self);
  Value item;
  return cursor.next(item) ? item : in.heap().undefined("No first item, sequence was empty.");
}

bool is_reversible(const Value& value) {
  return value.is(Kind::string) || value.is(Kind::list) || value.is(Kind::tuple) || value.is(Kind::dict) ||
         value.is(Kind::range) || value.is(Kind::view);
}

Value last(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("last", arguments, {});
  if (self.is(Kind::undefined)) return in.heap().undefined("No last item, sequence was empty.");
  if (!is_reversible(self)) fail("'{}' object is not reversible", type_name(self));
  std::vector<Value> items = to_vector(in.heap(), self);
  return items.empty() ? in.heap().undefined("No last item, sequence was empty.") : items.back();
}

Value reverse(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("reverse", arguments, {});
  if (self.is(Kind::string))
    return slice_of(in.heap(), self, Value::none(), Value::none(), Value::integer(-1));
  if (!is_iterable(self)) fail("argument must be iterable");
  std::vector<Value> items = to_vector(in.heap(), self);
  std::reverse(items.begin(), items.end());
  if (self.is(Kind::iterator)) return in.heap().list(std::move(items));
  return in.heap().iterator(std::move(items), "reversed");
}

Value length(Interpreter&, const Value& self, Arguments& arguments) {
  Parameters("length", arguments, {});
  auto count = length_of(self);
  if (!count) fail("object of type '{}' has no len()", type_name(self));
  return Value::integer(static_cast<std::int64_t>(*count));
}

Value list(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("list", arguments, {});
  return in.heap().list(to_vector(in.heap(), self));
}

Value items(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("items", arguments, {});
  std::vector<Value> out;
  if (self.is(Kind::undefined)) return in.heap().iterator({});
  if (!self.is(Kind::dict)) fail("Can only get item pairs from a mapping.");
  for (const auto& [key, value] : self.dict().items) out.push_back(in.heap().list({key, value}, Kind::tuple));
  return in.heap().iterator(std::move(out));
}

Value attr(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("attr", arguments, {"name"});
  require_defined(self);
  std::string name = in.text_of(p.require(0));
  bool own = self.is(Kind::space) || self.is(Kind::loop) || find_method(self, name) != nullptr;
  if (own) return in.attribute(self, name);
  return in.heap().undefined(fmt::format("'{} object' has no attribute {}", type_name(self), repr_cut(name)));
}

Value batch(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("batch", arguments, {"linecount", "fill_with"});
  p.require(0);
  std::int64_t size = p.integer(0, 0);
  std::vector<Value> rows, row;
  bool fill = p[1] && !p[1]->is(Kind::none);
  for (const Value& item : to_vector(in.heap(), self)) {
    if (static_cast<std::int64_t>(row.size()) == size) {
      rows.push_back(in.heap().list(std::move(row)));
      row.clear();
    }
    row.push_back(item);
  }
  if (!row.empty()) {
    if (fill && size > static_cast<std::int64_t>(row.size())) {
      in.heap().step(static_cast<std::size_t>(size));
      in.heap().expect(static_cast<std::size_t>(size) > SIZE_MAX / 16 ? SIZE_MAX
                                                                      : static_cast<std::size_t>(size) * 16);
      row.resize(static_cast<std::size_t>(size), *p[1]);
    }
    rows.push_back(in.heap().list(std::move(row)));
  }
  return in.heap().iterator(std::move(rows));
}

Value slice(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("slice", arguments, {"slices", "fill_with"});
  p.require(0);
  std::vector<Value> items = to_vector(in.heap(), self), rows;
  std::int64_t slices = p.integer(0, 0), size = static_cast<std::int64_t>(items.size());
  if (slices == 0) fail("integer division or modulo by zero");
  if (slices < 0) return in.heap().iterator({});
  in.heap().step(static_cast<std::size_t>(slices));
  in.heap().expect(static_cast<std::size_t>(slices) > SIZE_MAX / 64 ? SIZE_MAX
                                                                    : static_cast<std::size_t>(slices) * 64);
  std::int64_t each = size / slices, longer = size % slices, at = 0;
  for (std::int64_t i = 0; i < slices; ++i) {
    std::int64_t end = at + each + (i < longer);
    std::vector<Value> row(items.begin() + at, items.begin() + end);
    if (p[1] && !p[1]->is(Kind::none) && i >= longer) row.push_back(*p[1]);
    rows.push_back(in.heap().list(std::move(row)));
    at = end;
  }
  return in.heap().iterator(std::move(rows));
}

}  // namespace

void add_sequence_filters(FunctionTable& table) {
  table.insert({{"sort", sort},
                {"dictsort", dict_sort},
                {"unique", unique},
                {"min", extreme<-1>},
                {"max", extreme<1>},
                {"groupby", group_by},
                {"sum", sum},
                {"join", join},
                {"map", map},
                {"select", select<true, false>},
                {"reject", select<false, false>},
                {"selectattr", select<true, true>},
                {"rejectattr", select<false, true>},
                {"first", first},
                {"last", last},
                {"reverse", reverse},
                {"length", length},
                {"count", length},
                {"list", list},
                {"items", items},
                {"attr", attr},
                {"batch", batch},
                {"slice", slice}});
}

}  // namespace steelyard::jinja
