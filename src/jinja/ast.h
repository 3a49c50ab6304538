// What a template compiles to. Immutable after parsing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace steelyard::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;
struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr list, dict;  // *list, **dict; may be null
};

enum class Operator : std::uint8_t {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in,
};

struct Expression {
  enum class Type : std::uint8_t {
    constant,   // constant
    name,       // name_id
    tuple,      // parts
    list,       // parts
    dict,       // parts: key, value, key, value …
    attribute,  // parts[0].name
    item,       // parts[0][parts[1]]
    slice,      // parts[0][parts[1]:parts[2]:parts[3]], the bounds may be null
    call,       // parts[0](arguments)
    filter,     // parts[0] | name(arguments); parts[0] is null at the head of a filter block
    test,       // parts[0] is name(arguments)
    negate,
    plus,
    logical_not,  // parts[0]
    binary,       // parts[0] op parts[1]
    compare,      // parts[0] operators[0] parts[1] operators[1] parts[2] …
    logical_and,
    logical_or,  // parts[0], parts[1]
    concat,      // parts, ~ between
    condition,   // parts[0] if parts[1] else parts[2]; parts[2] may be null
    target,      // namespace attribute to assign to: name_id.name
  };
  Type type;
  Operator op = Operator::add;
  int line = 0;
  int depth = 1;     // of the tree below
  int name_id = -1;  // of a variable
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> parts;
  std::vector<Operator> operators;
  std::unique_ptr<CallArguments> arguments;
};

// Parameters of a macro or call block.
struct Signature {
  std::vector<int> name_ids;
  std::vector<std::string> names;
  std::vector<ExpressionPtr> defaults;                                  // for the last ones
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;  // mentioned in the body
};

struct Statement {
  enum class Type : std::uint8_t {
    data,          // text
    output,        // expressions
    for_loop,      // target in expressions[0] if expressions[1]; body, other; recursive
    if_else,       // expressions[i] → branches[i]; other
    set,           // target = expressions[0]
    set_block,     // target = body | expressions[0] (may be null)
    macro,         // name_id, signature, body
    call_block,    // expressions[0] is a call; signature, body
    filter_block,  // body | expressions[0]
    with,          // targets = expressions; body
    block,         // body
    generation,    // body
    autoescape,    // expressions[0], body
    break_loop,
    continue_loop,
    unsupported,  // name: a tag that needs other templates
  };
  Type type;
  bool recursive = false;
  int line = 0;
  int name_id = -1;
  std::string name;
  std::string text;
  ExpressionPtr target;
  std::vector<ExpressionPtr> targets;
  std::vector<ExpressionPtr> expressions;
  std::vector<Body> branches;
  Body body, other;
  std::unique_ptr<Signature> signature;
  // Names that the body sets before anything else could give them a value: they start out undefined in its
  // scope even when the template's variables hold such a name (as jinja2's compiler has it).
  std::vector<int> undefined_at_entry;
};

struct Template {
  Body body;
  std::vector<int> undefined_at_entry;  // as in Statement
  std::vector<std::string> names;       // by name_id
  int loop_id = -1, caller_id = -1, varargs_id = -1, kwargs_id = -1;
  std::vector<std::unique_ptr<StringObject>> literals;
};

}  // namespace steelyard::jinja
