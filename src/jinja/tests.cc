// jinja2's tests: {{ value is name(arguments) }}.

#include "jinja/interpreter.h"
#include "jinja/methods.h"
#include "jinja/python_text.h"
#include "jinja/tables.h"

namespace steelyard::jinja {

namespace {

template <Kind... kinds>
bool of_kind(Interpreter&, const Value& value, Arguments& arguments) {
  Parameters("test", arguments, {});
  return (value.is(kinds) || ...);
}

bool is_defined(Interpreter&, const Value& value, Arguments&) { return !value.is(Kind::undefined); }

bool is_sequence(Interpreter&, const Value& value, Arguments&) {
  return length_of(value).has_value() && !value.is(Kind::view);
}

bool is_iterable_test(Interpreter&, const Value& value, Arguments&) { return is_iterable(value); }
bool is_number(Interpreter&, const Value& value, Arguments&) { return value.is_number(); }

template <bool wanted>
bool is_bool(Interpreter&, const Value& value, Arguments&) {
  return value.is(Kind::boolean) && (value.integer() != 0) == wanted;
}

bool is_callable(Interpreter&, const Value& value, Arguments&) {
  return value.is(Kind::function) || value.is(Kind::macro) || value.is(Kind::joiner) ||
         value.is(Kind::loop) || value.is(Kind::undefined);
}

template <int wanted>
bool has_parity(Interpreter& in, const Value& value, Arguments&) {
  return equals(in.heap(), binary(in, Operator::modulo, value, Value::integer(2)), Value::integer(wanted));
}

bool divisible_by(Interpreter& in, const Value& value, Arguments& arguments) {
  Parameters p("divisibleby", arguments, {"num"});
  return equals(in.heap(), binary(in, Operator::modulo, value, p.require(0)), Value::integer(0));
}

bool is_in(Interpreter& in, const Value& value, Arguments& arguments) {
  Parameters p("in", arguments, {"seq"});
  return contains(in, p.require(0), value);
}

template <bool wanted>
bool is_equal(Interpreter& in, const Value& value, Arguments& arguments) {
  Parameters p("eq", arguments, {""});
  return equals(in.heap(), value, p.require(0)) == wanted;
}

template <int first, int second>
bool is_ordered(Interpreter& in, const Value& value, Arguments& arguments) {
  Parameters p("comparison", arguments, {""});
  int order = compare(in.heap(), value, p.require(0));
  return order == first || order == second;
}

bool is_same(Interpreter&, const Value& value, Arguments& arguments) {
  Parameters p("sameas", arguments, {"other"});
  const Value& other = p.require(0);
  if (value.kind() != other.kind()) return false;
  if (value.is(Kind::none)) return true;
  if (value.is_integral()) return value.integer() == other.integer();
  if (value.is(Kind::string)) return value.text() == other.text() && value.string().chars <= 1;
  return !value.is(Kind::real) && value.object() == other.object();
}

bool is_lower_case(Interpreter& in, const Value& value, Arguments&) {
  return text_is_lower(in.heap(), in.text_of(value));
}
bool is_upper_case(Interpreter& in, const Value& value, Arguments&) {
  return text_is_upper(in.heap(), in.text_of(value));
}

bool is_escaped(Interpreter&, const Value& value, Arguments&) {
  return value.is(Kind::string) && value.string().markup;
}

bool is_filter(Interpreter& in, const Value& value, Arguments&) {
  return find_filter(in.text_of(value)) != nullptr;
}
bool is_test(Interpreter& in, const Value& value, Arguments&) {
  return find_test(in.text_of(value)) != nullptr;
}
bool is_undefined(Interpreter&, const Value& value, Arguments&) { return value.is(Kind::undefined); }

}  // namespace

const TestTable& tests() {
  static const TestTable table = {
      {"defined", is_defined},
      {"undefined", is_undefined},
      {"none", of_kind<Kind::none>},
      {"boolean", of_kind<Kind::boolean>},
      {"integer", of_kind<Kind::integer>},
      {"float", of_kind<Kind::real>},
      {"string", of_kind<Kind::string>},
      {"mapping", of_kind<Kind::dict>},
      {"number", is_number},
      {"sequence", is_sequence},
      {"iterable", is_iterable_test},
      {"callable", is_callable},
      {"true", is_bool<true>},
      {"false", is_bool<false>},
      {"odd", has_parity<1>},
      {"even", has_parity<0>},
      {"divisibleby", divisible_by},
      {"in", is_in},
      {"eq", is_equal<true>},
      {"equalto", is_equal<true>},
      {"==", is_equal<true>},
      {"ne", is_equal<false>},
      {"!=", is_equal<false>},
      {"lt", is_ordered<-1, -1>},
      {"lessthan", is_ordered<-1, -1>},
      {"<", is_ordered<-1, -1>},
      {"le", is_ordered<-1, 0>},
      {"<=", is_ordered<-1, 0>},
      {"gt", is_ordered<1, 1>},
      {"greaterthan", is_ordered<1, 1>},
      {">", is_ordered<1, 1>},
      {"ge", is_ordered<1, 0>},
      {">=", is_ordered<1, 0>},
      {"sameas", is_same},
      {"lower", is_lower_case},
      {"upper", is_upper_case},
      {"escaped", is_escaped},
      {"filter", is_filter},
      {"test", is_test},
  };
  return table;
}

Test find_test(std::string_view name) {
  const auto found = tests().find(name);
  return found == tests().end() ? nullptr : found->second;
}

}  // namespace steelyard::jinja
