// The Parser's expressions, by precedence, with their depth bounded.
#include <algorithm>

#include "jinja/parser_impl.h"
#include "jinja/python_text.h"

namespace steelyard::jinja {

namespace {

constexpr int kMaxNesting = 150;
constexpr int kMaxDepth = 1000;

}  // namespace

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  if (++parser_.nesting_ > kMaxNesting) {
    --parser_.nesting_;
    parser_.stop("the template is nested too deeply");
  }
}

void Parser::note_depth(Expression& expression, const ExpressionPtr& child) const {
  if (child) expression.depth = std::max(expression.depth, child->depth + 1);
  if (expression.depth > kMaxDepth) stop("an expression is too long");
}

ExpressionPtr Parser::node(EType type, int line, std::vector<ExpressionPtr> parts) {
  auto made = std::make_unique<Expression>();
  made->type = type;
  made->line = line;
  for (const ExpressionPtr& part : parts) note_depth(*made, part);
  made->parts = std::move(parts);
  return made;
}

ExpressionPtr Parser::constant(Value value, int line) {
  auto made = node(EType::constant, line);
  made->constant = value;
  return made;
}

Value Parser::literal(std::string text) {
  template_.literals.push_back(std::make_unique<StringObject>(std::move(text)));
  return Value(Kind::string, template_.literals.back().get());
}

ExpressionPtr Parser::expression(bool with_condition) {
  Nesting nesting(*this);
  return with_condition ? condition() : logical_or();
}

ExpressionPtr Parser::condition() {
  ExpressionPtr value = logical_or();
  while (is_name("if")) {
    int line = now().line;
    next();
    ExpressionPtr asked = logical_or(), other;
    if (skip_name("else")) {
      Nesting nesting(*this);
      other = condition();
    }
    value = make(EType::condition, line, std::move(value), std::move(asked), std::move(other));
  }
  return value;
}

ExpressionPtr Parser::logical_or() {
  ExpressionPtr left = logical_and();
  while (is_name("or")) {
    int line = now().line;
    next();
    left = make(EType::logical_or, line, std::move(left), logical_and());
  }
  return left;
}

ExpressionPtr Parser::logical_and() {
  ExpressionPtr left = logical_not();
  while (is_name("and")) {
    int line = now().line;
    next();
    left = make(EType::logical_and, line, std::move(left), logical_not());
  }
  return left;
}

ExpressionPtr Parser::logical_not() {
  if (!is_name("not")) return comparison();
  Nesting nesting(*this);
  int line = now().line;
  next();
  return make(EType::logical_not, line, logical_not());
}

ExpressionPtr Parser::comparison() {
  static constexpr std::pair<std::string_view, Operator> kSigns[] = {
      {"==", Operator::equal},      {"!=", Operator::not_equal}, {"<", Operator::less},
      {"<=", Operator::less_equal}, {">", Operator::greater},    {">=", Operator::greater_equal}};
  ExpressionPtr first = sum();
  ExpressionPtr chain;
  while (true) {
    const auto* sign =
        std::find_if(std::begin(kSigns), std::end(kSigns), [&](const auto& s) { return is_op(s.first); });
    Operator op;
    int line = now().line;
    if (sign != std::end(kSigns)) {
      op = sign->second;
      next();
    } else if (is_name("in")) {
      op = Operator::in;
      next();
    } else if (is_name("not") && after().type == Token::Type::name && after().text == "in") {
      op = Operator::not_in;
      next();
      next();
    } else {
      return chain ? std::move(chain) : std::move(first);
    }
    if (!chain) chain = make(EType::compare, line, std::move(first));
    ExpressionPtr right = sum();
    note_depth(*chain, right);
    chain->operators.push_back(op);
    chain->parts.push_back(std::move(right));
  }
}

ExpressionPtr Parser::sum() {
  ExpressionPtr left = concat();
  while (is_op("+") || is_op("-")) {
    Operator op = is_op("+") ? Operator::add : Operator::subtract;
    int line = now().line;
    next();
    left = make(EType::binary, line, std::move(left), concat());
    left->op = op;
  }
  return left;
}

ExpressionPtr Parser::concat() {
  ExpressionPtr first = product();
  if (!is_op("~")) return first;
  auto joined = make(EType::concat, now().line, std::move(first));
  while (skip_op("~")) {
    joined->parts.push_back(product());
    note_depth(*joined, joined->parts.back());
  }
  return joined;
}

ExpressionPtr Parser::product() {
  ExpressionPtr left = power();
  while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
    Operator op = is_op("*")   ? Operator::multiply
                  : is_op("/") ? Operator::divide
                  : is_op("%") ? Operator::modulo
                               : Operator::floor_divide;
    int line = now().line;
    next();
    left = make(EType::binary, line, std::move(left), power());
    left->op = op;
  }
  return left;
}

ExpressionPtr Parser::power() {
  ExpressionPtr left = unary();
  while (is_op("**")) {
    int line = now().line;
    next();
    left = make(EType::binary, line, std::move(left), unary());
    left->op = Operator::power;
  }
  return left;
}

ExpressionPtr Parser::unary(bool with_filters) {
  int line = now().line;
  ExpressionPtr made;
  if (is_op("-") || is_op("+")) {
    Nesting nesting(*this);
    EType type = is_op("-") ? EType::negate : EType::plus;
    next();
    made = make(type, line, unary(false));
  } else {
    made = primary();
  }
  made = postfix(std::move(made));
  return with_filters ? filters(std::move(made)) : std::move(made);
}

ExpressionPtr Parser::number() {
  Token token = now();
  next();
  std::string digits;
  for (char c : token.text)
    if (c != '_') digits += c;
  if (token.type == Token::Type::real) return constant(Value::real(*parse_float(digits)), token.line);
  auto value = parse_int(digits, 0);
  if (!value) stop(fmt::format("the number {} needs more than 64 bits", digits.substr(0, 40)), token.line);
  return constant(Value::integer(*value), token.line);
}

ExpressionPtr Parser::primary() {
  Token token = now();
  switch (token.type) {
    case Token::Type::name: {
      next();
      const std::string& name = token.text;
      if (name == "true" || name == "True") return constant(Value::boolean(true), token.line);
      if (name == "false" || name == "False") return constant(Value::boolean(false), token.line);
      if (name == "none" || name == "None") return constant(Value::none(), token.line);
      auto made = node(EType::name, token.line);
      made->name = name;
      made->name_id = intern(name);
      mentioned_.push_back(made->name_id);
      return made;
    }
    case Token::Type::string: {
      std::string text;
      for (; is(Token::Type::string); next()) text += now().text;
      return constant(literal(std::move(text)), token.line);
    }
    case Token::Type::integer:
    case Token::Type::real:
      return number();
    case Token::Type::op:
      if (skip_op("(")) {
        ExpressionPtr made = tuple(true, {}, true);
        expect_op(")");
        return made;
      }
      if (is_op("[")) return list_display();
      if (is_op("{")) return dict_display();
      unexpected();
    default:
      unexpected();
  }
}

ExpressionPtr Parser::list_display() {
  auto made = node(EType::list, now().line);
  expect_op("[");
  while (!is_op("]")) {
    if (!made->parts.empty()) expect_op(",");
    if (is_op("]")) break;
    made->parts.push_back(expression());
    note_depth(*made, made->parts.back());
  }
  expect_op("]");
  return made;
}

ExpressionPtr Parser::dict_display() {
  auto made = node(EType::dict, now().line);
  expect_op("{");
  while (!is_op("}")) {
    if (!made->parts.empty()) expect_op(",");
    if (is_op("}")) break;
    made->parts.push_back(expression());
    note_depth(*made, made->parts.back());
    expect_op(":");
    made->parts.push_back(expression());
    note_depth(*made, made->parts.back());
  }
  expect_op("}");
  return made;
}

bool Parser::at_tuple_end(Names end_names) const {
  if (is(Token::Type::variable_end) || is(Token::Type::block_end) || is_op(")")) return true;
  return is(Token::Type::name) &&
         std::find(end_names.begin(), end_names.end(), now().text) != end_names.end();
}

std::pair<std::vector<ExpressionPtr>, bool> Parser::comma_separated(
    Names end_names, const std::function<ExpressionPtr()>& parse_item) {
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_op(",");
    if (at_tuple_end(end_names)) break;
    items.push_back(parse_item());
    if (!is_op(",")) break;
    is_tuple = true;
  }
  return {std::move(items), is_tuple};
}

ExpressionPtr Parser::tuple(bool with_condition, Names end_names, bool parenthesized) {
  int line = now().line;
  auto [items, is_tuple] = comma_separated(end_names, [&] { return expression(with_condition); });
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!parenthesized) stop(fmt::format("expected an expression, got {}", describe(now())));
  }
  return node(EType::tuple, line, std::move(items));
}

ExpressionPtr Parser::postfix(ExpressionPtr target) {
  while (true) {
    if (is_op(".") || is_op("[")) {
      target = subscript(std::move(target));
    } else if (is_op("(")) {
      target = call(std::move(target));
    } else {
      return target;
    }
  }
}

ExpressionPtr Parser::filters(ExpressionPtr target) {
  while (true) {
    if (is_op("|")) {
      target = filter(std::move(target), false);
    } else if (is_name("is")) {
      target = test(std::move(target));
    } else if (is_op("(")) {
      target = call(std::move(target));
    } else {
      return target;
    }
  }
}

std::string Parser::dotted_name() {
  std::string name = expect_any_name();
  while (skip_op(".")) {
    name += '.';
    name += expect_any_name();
  }
  return name;
}

ExpressionPtr Parser::filter(ExpressionPtr target, bool start_inline) {
  while (is_op("|") || start_inline) {
    if (!start_inline) next();
    start_inline = false;
    int line = now().line;
    std::string name = dotted_name();
    target = make(EType::filter, line, std::move(target));
    target->name = std::move(name);
    target->arguments = is_op("(") ? call_arguments() : std::make_unique<CallArguments>();
  }
  return target;
}

ExpressionPtr Parser::test(ExpressionPtr subject) {
  int line = now().line;
  next();
  bool negated = skip_name("not");
  std::string name = dotted_name();
  auto arguments = std::make_unique<CallArguments>();
  bool operand = is(Token::Type::name) || is(Token::Type::string) || is(Token::Type::integer) ||
                 is(Token::Type::real) || is_op("[") || is_op("{");
  if (is_op("(")) {
    arguments = call_arguments();
  } else if (operand && !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) stop("tests can't be chained with \"is\"");
    Nesting nesting(*this);
    arguments->positional.push_back(postfix(primary()));
  }
  auto made = make(EType::test, line, std::move(subject));
  for (const auto& argument : arguments->positional) note_depth(*made, argument);
  made->name = std::move(name);
  made->arguments = std::move(arguments);
  return negated ? make(EType::logical_not, line, std::move(made)) : std::move(made);
}

ExpressionPtr Parser::subscript(ExpressionPtr target) {
  int line = now().line;
  if (skip_op(".")) {
    if (is(Token::Type::name)) {
      std::string name = expect_any_name();
      auto made = make(EType::attribute, line, std::move(target));
      made->constant = literal(name);
      made->name = std::move(name);
      return made;
    }
    if (!is(Token::Type::integer)) stop("expected name or number");
    return make(EType::item, line, std::move(target), number());
  }
  expect_op("[");
  Nesting nesting(*this);
  ExpressionPtr made = subscribed(std::move(target));
  if (is_op(",")) {  // a[1, 2]: the key is a tuple
    if (made->type != EType::item) stop("a slice can't be part of a tuple");
    auto key = make(EType::tuple, line, std::move(made->parts[1]));
    while (skip_op(",")) key->parts.push_back(expression());
    for (const auto& part : key->parts) note_depth(*key, part);
    made->parts[1] = std::move(key);
    note_depth(*made, made->parts[1]);
  }
  expect_op("]");
  return made;
}

ExpressionPtr Parser::subscribed(ExpressionPtr target) {
  int line = now().line;
  ExpressionPtr start, end, step;
  if (!is_op(":")) {
    start = expression();
    if (!is_op(":")) return make(EType::item, line, std::move(target), std::move(start));
  }
  next();
  if (!is_op(":") && !is_op("]") && !is_op(",")) end = expression();
  if (skip_op(":") && !is_op("]") && !is_op(",")) step = expression();
  return make(EType::slice, line, std::move(target), std::move(start), std::move(end), std::move(step));
}

ExpressionPtr Parser::call(ExpressionPtr target) {
  int line = now().line;
  auto made = make(EType::call, line, std::move(target));
  made->arguments = call_arguments();
  return made;
}

std::unique_ptr<CallArguments> Parser::call_arguments() {
  Nesting nesting(*this);
  auto made = std::make_unique<CallArguments>();
  expect_op("(");
  bool any = false;
  while (!is_op(")")) {
    if (any) {
      expect_op(",");
      if (is_op(")")) break;
    }
    any = true;
    bool named = is(Token::Type::name) && after().type == Token::Type::op && after().text == "=";
    if (is_op("*")) {
      if (made->list || made->dict) stop("invalid syntax for function call expression");
      next();
      made->list = expression();
    } else if (is_op("**")) {
      if (made->dict) stop("invalid syntax for function call expression");
      next();
      made->dict = expression();
    } else if (named) {
      if (made->dict) stop("invalid syntax for function call expression");
      std::string name = expect_any_name();
      next();
      made->named.emplace_back(std::move(name), expression());
    } else {
      if (made->list || made->dict || !made->named.empty())
        stop("invalid syntax for function call expression");
      made->positional.push_back(expression());
    }
  }
  expect_op(")");
  return made;
}

}  // namespace steelyard::jinja
