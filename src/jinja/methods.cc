// Methods of dict, list, tuple, numbers, cycler; global functions.
#include <algorithm>
#include <cmath>

#include "jinja/interpreter.h"
#include "jinja/methods.h"
#include "jinja/tables.h"

namespace steelyard::jinja {

namespace {

template <ViewObject::Part part>
Value dict_view(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("dict method", arguments, {});
  auto* view = in.heap().make<ViewObject>();
  view->part = part;
  view->dict = self;
  return Value(Kind::view, view);
}

Value dict_get(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("get", arguments, {"", " "});
  const Value& key = p.require(0);
  hash_of(in.heap(), key);
  const Value* found = self.dict().find(in.heap(), key);
  return found ? *found : p[1] ? *p[1] : Value::none();
}

Value same(Interpreter&, const Value& self, Arguments& arguments) {  // copy() of what can't change
  Parameters("copy", arguments, {});
  return self;
}

Value dict_from_keys(Interpreter& in, const Value&, Arguments& arguments) {
  Parameters p("fromkeys", arguments, {"", " "});
  DictObject* dict = in.heap().new_dict();
  for (const Value& key : to_vector(in.heap(), p.require(0))) {
    hash_of(in.heap(), key);
    in.heap().charge(2 * sizeof(Value));
    dict->set(in.heap(), key, p[1] ? *p[1] : Value::none());
  }
  return Value(Kind::dict, dict);
}

Value list_count(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("count", arguments, {""});
  return Value::integer(std::count_if(self.items().begin(), self.items().end(), [&](const Value& item) {
    return equals(in.heap(), item, p.require(0));
  }));
}

Value list_index(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("index", arguments, {"", " ", "  "});
  const auto& items = self.items();
  std::int64_t size = static_cast<std::int64_t>(items.size());
  auto bound = [&](std::size_t i, std::int64_t otherwise) {
    std::int64_t at = p.integer(i, otherwise);
    return std::clamp<std::int64_t>(at < 0 ? (at < -size ? 0 : at + size) : at, 0, size);
  };
  for (std::int64_t i = bound(1, 0), end = bound(2, size); i < end; ++i)
    if (equals(in.heap(), items[static_cast<std::size_t>(i)], p.require(0))) return Value::integer(i);
  fail("the value is not in the {}", type_name(self));
}

// range has both, too.
template <Function of_list>
Value of_range(Interpreter& in, const Value& self, Arguments& arguments) {
  return of_list(in, in.heap().list(to_vector(in.heap(), self)), arguments);
}

Value is_integer(Interpreter&, const Value& self, Arguments&) {
  return Value::boolean(self.is_integral() || std::floor(self.number()) == self.number());
}

Value bit_length(Interpreter&, const Value& self, Arguments&) {
  std::uint64_t magnitude = static_cast<std::uint64_t>(self.integer());
  if (self.integer() < 0) magnitude = 0 - magnitude;
  std::int64_t bits = 0;
  for (; magnitude != 0; magnitude >>= 1) ++bits;
  return Value::integer(bits);
}

Value cycler_next(Interpreter&, const Value& self, Arguments&) {
  auto& cycler = *static_cast<CyclerObject*>(self.object());
  Value item = cycler.items[cycler.at];
  cycler.at = (cycler.at + 1) % cycler.items.size();
  return item;
}

Value cycler_reset(Interpreter&, const Value& self, Arguments&) {
  static_cast<CyclerObject*>(self.object())->at = 0;
  return Value::none();
}

// --------------------------------------------------------------------------------------------------- globals

constexpr std::int64_t kMaxRange = 100000;  // of jinja2's sandbox

Value make_range(Interpreter& in, const Value&, Arguments& arguments) {
  Parameters p("range", arguments, {"", " ", "  "});
  auto* range = in.heap().make<RangeObject>();
  p.require(0);
  range->start = p[1] ? p.integer(0, 0) : 0;
  range->stop = p[1] ? p.integer(1, 0) : p.integer(0, 0);
  range->step = p.integer(2, 1);
  if (range->step == 0) fail("range() arg 3 must not be zero");
  if (static_cast<std::uint64_t>(range->size()) > kMaxRange)
    fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMaxRange);
  return Value(Kind::range, range);
}

void add_pairs(Interpreter& in, DictObject& dict, const Value& source) {
  if (source.is(Kind::dict)) {
    for (const auto& [key, value] : source.dict().items) {
      in.heap().charge(2 * sizeof(Value));
      dict.set(in.heap(), key, value);
    }
    return;
  }
  for (const Value& pair : to_vector(in.heap(), source)) {
    std::vector<Value> both = to_vector(in.heap(), pair);
    if (both.size() != 2)
      fail("dictionary update sequence element has length {}; 2 is required", both.size());
    hash_of(in.heap(), both[0]);
    in.heap().charge(2 * sizeof(Value));
    dict.set(in.heap(), both[0], both[1]);
  }
}

void fill_dict(Interpreter& in, DictObject& dict, const Arguments& arguments, const char* name) {
  if (arguments.positional.size() > 1) fail("{}() takes at most 1 positional argument", name);
  if (!arguments.positional.empty()) {
    require_defined(arguments.positional[0]);
    add_pairs(in, dict, arguments.positional[0]);
  }
  for (const auto& [key, value] : arguments.named)
    dict.set(in.heap(), in.heap().string(std::string(key)), value);
}

Value make_dict(Interpreter& in, const Value&, Arguments& arguments) {
  DictObject* dict = in.heap().new_dict();
  fill_dict(in, *dict, arguments, "dict");
  return Value(Kind::dict, dict);
}

Value make_namespace(Interpreter& in, const Value&, Arguments& arguments) {
  auto* space = in.heap().make<SpaceObject>();
  fill_dict(in, space->attributes, arguments, "namespace");
  return Value(Kind::space, space);
}

Value make_cycler(Interpreter& in, const Value&, Arguments& arguments) {
  if (arguments.positional.empty()) fail("at least one item has to be provided");
  auto* cycler = in.heap().make<CyclerObject>();
  cycler->items = arguments.positional;
  return Value(Kind::cycler, cycler);
}

Value make_joiner(Interpreter& in, const Value&, Arguments& arguments) {
  Parameters p("joiner", arguments, {"sep"});
  auto* joiner = in.heap().make<JoinerObject>();
  joiner->separator = p[0] ? *p[0] : in.heap().view(", ");
  return Value(Kind::joiner, joiner);
}

Value raise_exception(Interpreter& in, const Value&, Arguments& arguments) {
  Parameters p("raise_exception", arguments, {"message"});
  throw Failure{in.text_of(p.require(0)), 0, true};
}

// datetime.now().strftime(format): no time zone, no microseconds.
Value strftime_now(Interpreter& in, const Value&, Arguments& arguments) {
  Parameters p("strftime_now", arguments, {"format"});
  if (!p.require(0).is(Kind::string)) fail("strftime() argument 1 must be str, not {}", type_name(*p[0]));
  std::string format;
  std::string_view wanted = p[0]->text();
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    char next = wanted[i] == '%' && i + 1 < wanted.size() ? wanted[i + 1] : '\0';
    if (next == 'f') format += "000000";
    if (next != 'f' && next != 'z' && next != 'Z') format += wanted[i];
    if (next == '%') format += next;
    if (next == 'f' || next == 'z' || next == 'Z' || next == '%') ++i;
  }
  std::tm local{};
  std::time_t now = in.now();
  localtime_r(&now, &local);
  std::string out;
  in.heap().expect(format.size() * 64 + 256);
  in.heap().step(format.size());
  out.resize(format.size() * 16 + 256);
  out.resize(format.empty() ? 0 : std::strftime(out.data(), out.size(), format.c_str(), &local));
  return in.heap().string(std::move(out));
}

Value lipsum(Interpreter&, const Value&, Arguments&) { fail("lipsum() is not supported"); }

}  // namespace

const FunctionTable& methods_of(Kind kind) {
  static const FunctionTable dicts = {{"items", dict_view<ViewObject::Part::items>},
                                      {"keys", dict_view<ViewObject::Part::keys>},
                                      {"values", dict_view<ViewObject::Part::values>},
                                      {"get", dict_get},
                                      {"copy", same},
                                      {"fromkeys", dict_from_keys}};
  static const FunctionTable tuples = {{"count", list_count}, {"index", list_index}};
  static const FunctionTable lists = {{"count", list_count}, {"index", list_index}, {"copy", same}};
  static const FunctionTable ranges = {{"count", of_range<list_count>}, {"index", of_range<list_index>}};
  static const FunctionTable cyclers = {{"next", cycler_next}, {"reset", cycler_reset}};
  static const FunctionTable reals = {{"is_integer", is_integer}};
  static const FunctionTable integers = {{"bit_length", bit_length}};
  static const FunctionTable none;
  switch (kind) {
    case Kind::string:
      return string_methods();
    case Kind::dict:
      return dicts;
    case Kind::list:
      return lists;
    case Kind::tuple:
      return tuples;
    case Kind::range:
      return ranges;
    case Kind::cycler:
      return cyclers;
    case Kind::real:
      return reals;
    case Kind::integer:
    case Kind::boolean:
      return integers;
    default:
      return none;
  }
}

Function find_method(const Value& owner, std::string_view name) {
  return in_table(methods_of(owner.kind()), name);
}

bool is_unsafe_method(const Value& owner, std::string_view name) {
  static constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  if (owner.is(Kind::list)) return std::find(std::begin(kList), std::end(kList), name) != std::end(kList);
  if (owner.is(Kind::dict)) return std::find(std::begin(kDict), std::end(kDict), name) != std::end(kDict);
  return false;
}

const FunctionTable& globals() {
  static const FunctionTable table = {{"range", make_range},          {"dict", make_dict},
                                      {"namespace", make_namespace},  {"cycler", make_cycler},
                                      {"joiner", make_joiner},        {"raise_exception", raise_exception},
                                      {"strftime_now", strftime_now}, {"lipsum", lipsum}};
  return table;
}

Function find_global(std::string_view name) { return in_table(globals(), name); }

}  // namespace steelyard::jinja
