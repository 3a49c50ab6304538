// The Interpreter's expressions: JSON variables, names, attributes, calls, filters and tests.
#include <algorithm>

#include "base/utf8.h"
#include "jinja/interpreter.h"
#include "jinja/python_text.h"

namespace steelyard::jinja {

Value Interpreter::from_json(const nlohmann::ordered_json& json, int depth) {
  using Type = nlohmann::ordered_json::value_t;
  if (depth > kMaxValueDepth) fail("the template's variables are nested too deeply");
  switch (json.type()) {
    case Type::boolean:
      return Value::boolean(json.get<bool>());
    case Type::number_integer:
      return Value::integer(json.get<std::int64_t>());
    case Type::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
        return Value::real(json.get<double>());
      return Value::integer(json.get<std::int64_t>());
    case Type::number_float:
      return Value::real(json.get<double>());
    case Type::string: {
      const auto& text = json.get_ref<const std::string&>();
      std::string valid = valid_utf8(text);
      return valid == text ? heap_.view(text) : heap_.string(std::move(valid));
    }
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return heap_.list(std::move(items));
    }
    case Type::object: {
      DictObject* dict = heap_.new_dict();
      for (const auto& [key, value] : json.items()) {
        heap_.charge(2 * sizeof(Value));
        dict->set(heap_, heap_.string(valid_utf8(key)), from_json(value, depth + 1));
      }
      return Value(Kind::dict, dict);
    }
    default:
      return Value::none();
  }
}

Value Interpreter::bound_method(Function function, const Value& owner, std::string_view name) {
  auto* made = heap_.make<FunctionObject>();
  made->function = function;
  made->self = owner;
  made->name = name;
  return Value(Kind::function, made);
}

// ------------------------------------------------------------------------------------- attributes and items

// jinja2's order for a.b: the Python attribute, then the item "b", else undefined.
Value Interpreter::attribute(const Value& owner, std::string_view name) {
  require_defined(owner);
  if (owner.is(Kind::loop)) return loop_attribute(owner, name);
  if (Function method = find_method(owner, name)) return bound_method(method, owner, name);
  if (is_unsafe_method(owner, name))
    return heap_.undefined(
        fmt::format("access to attribute {} of '{}' object is unsafe.", repr_cut(name), type_name(owner)));
  if (owner.is(Kind::space)) {
    const auto& attributes = static_cast<SpaceObject*>(owner.object())->attributes;
    if (const Value* found = attributes.find(heap_, name)) return *found;
  }
  if (owner.is(Kind::dict)) {
    heap_.step(1 + name.size() / 64);
    if (const Value* found = owner.dict().find(heap_, name)) return *found;
  }
  if (owner.is(Kind::tuple) && static_cast<SequenceObject*>(owner.object())->group) {
    if (name == "grouper") return owner.items()[0];
    if (name == "list") return owner.items()[1];
  }
  if (owner.is(Kind::macro) && name == "name")
    return heap_.view(static_cast<MacroObject*>(owner.object())->name);
  if (owner.is(Kind::cycler) && name == "current") {
    const auto& cycler = *static_cast<CyclerObject*>(owner.object());
    return cycler.items[cycler.at];
  }
  std::string whose = owner.is(Kind::none) ? "None" : fmt::format("'{} object'", type_name(owner));
  return heap_.undefined(fmt::format("{} has no attribute {}", whose, repr_cut(name)));
}

Value Interpreter::item(const Value& owner, const Value& key) {
  require_defined(owner);
  heap_.step();
  bool sequence =
      owner.is(Kind::list) || owner.is(Kind::tuple) || owner.is(Kind::string) || owner.is(Kind::range);
  if (sequence && key.is_integral()) {
    std::int64_t size = static_cast<std::int64_t>(length_of(owner).value());
    std::int64_t index = key.integer() < 0 ? key.integer() + size : key.integer();
    if (index < 0 || index >= size)
      return heap_.undefined(fmt::format("{} object has no element {}", type_name(owner), key.integer()));
    if (owner.is(Kind::range)) return Value::integer(static_cast<RangeObject*>(owner.object())->at(index));
    if (!owner.is(Kind::string)) return owner.items()[static_cast<std::size_t>(index)];
    const StringObject& string = owner.string();
    if (!string.ascii()) heap_.step(string.text.size() / 64);
    std::size_t begin = byte_offset(string.text, static_cast<std::size_t>(index), string.ascii()), length;
    char_at(string.text, begin, &length);
    return heap_.character(string.text.substr(begin, length));
  }
  if (owner.is(Kind::dict)) {
    bool hashable = !key.is(Kind::list) && !key.is(Kind::dict) && !key.is(Kind::view);
    if (hashable)
      if (const Value* found = owner.dict().find(heap_, key)) return *found;
    if (!key.is(Kind::string))
      return heap_.undefined(fmt::format("dict object has no element {}", cut_text(text_of(key))));
  }
  // Methods can be named in brackets, too.
  if (key.is(Kind::string)) return attribute(owner, key.text());
  return heap_.undefined(fmt::format("'{}' object has no such element", type_name(owner)));
}

// ---------------------------------------------------------------------------------------------------- calls

Value Interpreter::call(const Value& callee, Arguments& arguments) {
  heap_.step();
  switch (callee.kind()) {
    case Kind::undefined:
      fail_undefined(callee);
    case Kind::function: {
      auto* function = static_cast<FunctionObject*>(callee.object());
      return function->function(*this, function->self, arguments);
    }
    case Kind::macro:
      return call_macro(*static_cast<MacroObject*>(callee.object()), arguments);
    case Kind::loop:
      return call_loop(*static_cast<LoopObject*>(callee.object()), arguments);
    case Kind::joiner: {
      auto* joiner = static_cast<JoinerObject*>(callee.object());
      return std::exchange(joiner->used, true) ? joiner->separator : heap_.view("");
    }
    default:
      fail("'{}' object is not callable", type_name(callee));
  }
}

void Interpreter::fill(const CallArguments& given, Arguments& arguments) {
  for (const auto& argument : given.positional) arguments.positional.push_back(evaluate(*argument));
  for (const auto& [name, argument] : given.named) arguments.named.emplace_back(name, evaluate(*argument));
  if (given.list) {
    for (const Value& item : to_vector(heap_, evaluate(*given.list))) arguments.positional.push_back(item);
  }
  if (!given.dict) return;
  Value dict = evaluate(*given.dict);
  if (!dict.is(Kind::dict)) fail("argument after ** must be a mapping, not {}", type_name(dict));
  for (const auto& [key, value] : dict.dict().items) {
    if (!key.is(Kind::string)) fail("keywords must be strings");
    heap_.step(arguments.named.size() * (1 + key.text().size() / 64));
    for (const auto& [name, other] : arguments.named)
      if (name == key.text()) fail("got multiple values for keyword argument {}", repr_cut(name));
    arguments.named.emplace_back(key.text(), value);
  }
}

Value Interpreter::evaluate_call(const Expression& expression, const Value* caller) {
  const Expression& target = *expression.parts[0];
  Value callee;
  Function method = nullptr;
  if (target.type == Expression::Type::attribute) {  // a.b(…): no need to make a bound method
    Value owner = evaluate(*target.parts[0]);
    require_defined(owner);
    if (!owner.is(Kind::loop)) method = find_method(owner, target.name);
    callee = method ? owner : attribute(owner, target.name);
  } else {
    callee = evaluate(target);
  }
  Arguments arguments;
  fill(*expression.arguments, arguments);
  if (caller != nullptr) arguments.named.emplace_back("caller", *caller);
  line_ = expression.line;
  if (method == nullptr) return call(callee, arguments);
  heap_.step();
  return method(*this, callee, arguments);
}

Value Interpreter::filter(std::string_view name, const Value& value, Arguments& arguments) {
  Function function = find_filter(name);
  if (function == nullptr) fail("No filter named {}.", repr_cut(name));
  heap_.step();
  return function(*this, value, arguments);
}

bool Interpreter::test(std::string_view name, const Value& value, Arguments& arguments) {
  Test function = find_test(name);
  if (function == nullptr) fail("No test named {}.", repr_cut(name));
  heap_.step();
  return function(*this, value, arguments);
}

Value Interpreter::evaluate_filter(const Expression& expression, const Value* input) {
  Value value;
  const Expression* source = expression.parts[0].get();
  if (source == nullptr) {
    value = *input;
  } else if (input != nullptr && source->type == Expression::Type::filter) {
    value = evaluate_filter(*source, input);  // a chain that begins with the text of a block
  } else {
    value = evaluate(*source);
  }
  Arguments arguments;
  fill(*expression.arguments, arguments);
  line_ = expression.line;
  return filter(expression.name, value, arguments);
}

bool Interpreter::evaluate_test(const Expression& expression) {
  Value value = evaluate(*expression.parts[0]);
  Arguments arguments;
  fill(*expression.arguments, arguments);
  line_ = expression.line;
  return test(expression.name, value, arguments);
}

// ------------------------------------------------------------------------------------------------ operators

Value Interpreter::evaluate_sequence(const Expression& expression) {
  std::vector<Value> items;
  items.reserve(expression.parts.size());
  for (const auto& part : expression.parts) items.push_back(evaluate(*part));
  return heap_.list(std::move(items), expression.type == Expression::Type::list ? Kind::list : Kind::tuple);
}

Value Interpreter::evaluate_dict(const Expression& expression) {
  DictObject* dict = heap_.new_dict();
  for (std::size_t i = 0; i + 1 < expression.parts.size(); i += 2) {
    Value key = evaluate(*expression.parts[i]), value = evaluate(*expression.parts[i + 1]);
    heap_.charge(2 * sizeof(Value));
    hash_of(heap_, key);  // refuses what can't be a key
    dict->set(heap_, key, value);
  }
  return Value(Kind::dict, dict);
}

Value Interpreter::evaluate_slice(const Expression& expression) {
  Value bounds[3] = {Value::none(), Value::none(), Value::none()};
  Value owner = evaluate(*expression.parts[0]);
  for (std::size_t i = 0; i < 3; ++i)
    if (expression.parts[i + 1]) bounds[i] = evaluate(*expression.parts[i + 1]);
  return slice_of(heap_, owner, bounds[0], bounds[1], bounds[2]);
}

Value Interpreter::evaluate_compare(const Expression& expression) {
  Value left = evaluate(*expression.parts[0]);
  for (std::size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.parts[i + 1]);
    bool holds = false;
    switch (expression.operators[i]) {
      case Operator::equal:
        holds = equals(heap_, left, right);
        break;
      case Operator::not_equal:
        holds = !equals(heap_, left, right);
        break;
      case Operator::less:
        holds = compare(heap_, left, right, "<") == -1;
        break;
      case Operator::greater:
        holds = compare(heap_, left, right, ">") == 1;
        break;
      case Operator::less_equal: {
        int c = compare(heap_, left, right, "<=");
        holds = c == -1 || c == 0;
        break;
      }
      case Operator::greater_equal: {
        int c = compare(heap_, left, right, ">=");
        holds = c == 1 || c == 0;
        break;
      }
      case Operator::in:
        holds = contains(*this, right, left);
        break;
      default:
        holds = !contains(*this, right, left);
        break;
    }
    if (!holds) return Value::boolean(false);
    left = right;
  }
  return Value::boolean(true);
}

Value Interpreter::evaluate_concat(const Expression& expression) {
  std::string joined;
  for (const auto& part : expression.parts) {
    Value value = evaluate(*part);
    bool plain = !(value.is(Kind::string) && value.string().markup);
    if (autoescape_ && plain) {
      joined += escaped(heap_, text_of(value));
      heap_.expect(joined.size());
    } else {
      append_text(heap_, joined, value);
    }
  }
  return heap_.string(std::move(joined), autoescape_);
}

Value Interpreter::evaluate_condition(const Expression& expression) {
  if (truth(evaluate(*expression.parts[1]))) return evaluate(*expression.parts[0]);
  if (expression.parts[2]) return evaluate(*expression.parts[2]);
  return heap_.undefined("the inline if-expression evaluated to false and no else section was defined.");
}

Value Interpreter::evaluate(const Expression& expression) {
  using Type = Expression::Type;
  check_stack();
  heap_.step();
  line_ = expression.line;
  const auto& parts = expression.parts;
  switch (expression.type) {
    case Type::constant:
      return expression.constant;
    case Type::name:
      return lookup(expression.name_id);
    case Type::tuple:
    case Type::list:
      return evaluate_sequence(expression);
    case Type::dict:
      return evaluate_dict(expression);
    case Type::attribute:
      return attribute(evaluate(*parts[0]), expression.name);
    case Type::item: {
      Value owner = evaluate(*parts[0]);
      return item(owner, evaluate(*parts[1]));
    }
    case Type::slice:
      return evaluate_slice(expression);
    case Type::call:
      return evaluate_call(expression);
    case Type::filter:
      return evaluate_filter(expression, nullptr);
    case Type::test:
      return Value::boolean(evaluate_test(expression));
    case Type::negate:
    case Type::plus:
      return negated(evaluate(*parts[0]), expression.type == Type::negate);
    case Type::logical_not:
      return Value::boolean(!truth(evaluate(*parts[0])));
    case Type::binary: {
      Value left = evaluate(*parts[0]), right = evaluate(*parts[1]);
      line_ = expression.line;
      return binary(*this, expression.op, left, right);
    }
    case Type::compare:
      return evaluate_compare(expression);
    case Type::logical_and: {
      Value left = evaluate(*parts[0]);
      return truth(left) ? evaluate(*parts[1]) : left;
    }
    case Type::logical_or: {
      Value left = evaluate(*parts[0]);
      return truth(left) ? left : evaluate(*parts[1]);
    }
    case Type::concat:
      return evaluate_concat(expression);
    case Type::condition:
      return evaluate_condition(expression);
    case Type::target:
      break;
  }
  fail("an expression can't be evaluated");
}

}  // namespace steelyard::jinja
