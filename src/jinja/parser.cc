#include "jinja/parser.h"

#include <algorithm>

#include "jinja/parser_impl.h"
#include "jinja/scopes.h"

namespace steelyard::jinja {

std::unique_ptr<Template> parse(std::string_view source) {
  auto made = std::make_unique<Template>();
  Parser(*made, tokenize(source)).run();
  find_undefined_at_entry(*made);
  return made;
}

void Parser::run() {
  template_.loop_id = intern("loop");
  template_.caller_id = intern("caller");
  template_.varargs_id = intern("varargs");
  template_.kwargs_id = intern("kwargs");
  template_.body = subparse({});
}

void Parser::stop(std::string message, int line) const {
  throw Failure{std::move(message), line > 0 ? line : now().line};
}

std::string Parser::describe(const Token& token) const {
  switch (token.type) {
    case Token::Type::end:
      return "the end of the template";
    case Token::Type::block_end:
      return "end of statement block";
    case Token::Type::variable_end:
      return "end of print statement";
    case Token::Type::string:
      return "a string";
    default:
      return "'" + token.text + "'";
  }
}

void Parser::unexpected() const { stop("unexpected " + describe(now())); }

bool Parser::skip_op(std::string_view op) {
  if (!is_op(op)) return false;
  next();
  return true;
}

bool Parser::skip_name(std::string_view name) {
  if (!is_name(name)) return false;
  next();
  return true;
}

void Parser::expect_op(std::string_view op) {
  if (!skip_op(op)) stop(fmt::format("expected '{}', got {}", op, describe(now())));
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) stop(fmt::format("expected '{}', got {}", name, describe(now())));
}

std::string Parser::expect_any_name() {
  if (!is(Token::Type::name)) stop(fmt::format("expected a name, got {}", describe(now())));
  std::string name = now().text;
  next();
  return name;
}

int Parser::intern(const std::string& name) {
  auto [at, added] = ids_.emplace(name, static_cast<int>(template_.names.size()));
  if (added) template_.names.push_back(name);
  return at->second;
}

std::unique_ptr<Statement> Parser::new_statement(SType type) const {
  auto made = std::make_unique<Statement>();
  made->type = type;
  made->line = now().line;
  return made;
}

Body Parser::subparse(Names end_tags) {
  Nesting nesting(*this);
  Body body;
  while (!is(Token::Type::end)) {
    if (is(Token::Type::data)) {
      body.push_back(new_statement(SType::data));
      body.back()->text = now().text;
      next();
    } else if (is(Token::Type::variable_begin)) {
      next();
      body.push_back(new_statement(SType::output));
      body.back()->expressions.push_back(tuple(true, {}, false));
      if (!is(Token::Type::variable_end)) stop(fmt::format("expected '}}}}', got {}", describe(now())));
      next();
    } else {
      next();  // {%
      bool ends =
          is(Token::Type::name) && std::find(end_tags.begin(), end_tags.end(), now().text) != end_tags.end();
      if (ends) return body;
      body.push_back(statement());
      if (!is(Token::Type::block_end)) stop(fmt::format("expected '%}}', got {}", describe(now())));
      next();
    }
  }
  if (end_tags.size() > 0)
    stop(fmt::format("the template ends inside a block; '{}' is missing", *(end_tags.end() - 1)));
  return body;
}

Body Parser::block_body(Names end_tags) {
  skip_op(":");
  if (!is(Token::Type::block_end)) stop(fmt::format("expected '%}}', got {}", describe(now())));
  next();
  return subparse(end_tags);
}

std::unique_ptr<Statement> Parser::statement() {
  if (!is(Token::Type::name)) stop("tag name expected");
  std::string tag = now().text;
  if (tag == "for") return for_statement();
  if (tag == "if") return if_statement();
  if (tag == "set") return set_statement();
  if (tag == "macro") return macro_statement();
  if (tag == "call") return call_statement();
  if (tag == "with") return with_statement();
  if (tag == "block") return block_statement();
  if (tag == "filter") return body_statement(SType::filter_block, "endfilter");
  if (tag == "generation") return body_statement(SType::generation, "endgeneration");
  if (tag == "autoescape") return body_statement(SType::autoescape, "endautoescape");
  if (tag == "break" || tag == "continue") {
    auto made = new_statement(tag == "break" ? SType::break_loop : SType::continue_loop);
    if (loop_depth_ == 0) stop(fmt::format("'{}' outside loop", tag));
    next();
    return made;
  }
  if (tag == "print") {
    auto made = new_statement(SType::output);
    next();
    while (!is(Token::Type::block_end)) {
      if (!made->expressions.empty()) expect_op(",");
      made->expressions.push_back(expression());
    }
    return made;
  }
  if (tag == "include" || tag == "import" || tag == "from" || tag == "extends")
    return unsupported_statement(tag);
  stop(fmt::format("encountered unknown tag '{}'", tag));
}

// Tags that need other templates fail when they are reached, as they do without a loader.
std::unique_ptr<Statement> Parser::unsupported_statement(const std::string& name) {
  auto made = new_statement(SType::unsupported);
  made->name = name;
  while (!is(Token::Type::block_end) && !is(Token::Type::end)) next();
  return made;
}

std::unique_ptr<Statement> Parser::for_statement() {
  auto made = new_statement(SType::for_loop);
  next();
  made->target = target(false, {"in"});
  expect_name("in");
  made->expressions.push_back(tuple(false, {"recursive"}, false));
  made->expressions.push_back(skip_name("if") ? expression() : nullptr);
  made->recursive = skip_name("recursive");
  ++loop_depth_;
  made->body = block_body({"endfor", "else"});
  --loop_depth_;
  if (skip_name("else")) made->other = block_body({"endfor"});
  expect_name("endfor");
  return made;
}

std::unique_ptr<Statement> Parser::if_statement() {
  auto made = new_statement(SType::if_else);
  do {
    next();
    made->expressions.push_back(tuple(false, {}, false));
    made->branches.push_back(block_body({"elif", "else", "endif"}));
  } while (is_name("elif"));
  if (skip_name("else")) made->other = block_body({"endif"});
  expect_name("endif");
  return made;
}

std::unique_ptr<Statement> Parser::set_statement() {
  auto made = new_statement(SType::set);
  next();
  made->target = target(true, {});
  if (skip_op("=")) {
    made->expressions.push_back(tuple(true, {}, false));
    return made;
  }
  made->type = SType::set_block;
  made->expressions.push_back(is_op("|") ? filter(nullptr, false) : nullptr);
  made->body = block_body({"endset"});
  expect_name("endset");
  return made;
}

std::unique_ptr<Signature> Parser::signature() {
  auto made = std::make_unique<Signature>();
  expect_op("(");
  while (!is_op(")")) {
    if (!made->names.empty()) expect_op(",");
    ExpressionPtr name = target_name();
    if (std::find(made->names.begin(), made->names.end(), name->name) != made->names.end())
      stop(fmt::format("duplicate argument '{}'", name->name));
    made->names.push_back(name->name);
    made->name_ids.push_back(name->name_id);
    if (skip_op("=")) {
      made->defaults.push_back(expression());
    } else if (!made->defaults.empty()) {
      stop("non-default argument follows default argument");
    }
  }
  expect_op(")");
  return made;
}

void Parser::note_mentions(Signature& signature, std::size_t first_mention) const {
  for (std::size_t i = first_mention; i < mentioned_.size(); ++i) {
    signature.uses_caller |= mentioned_[i] == template_.caller_id;
    signature.uses_varargs |= mentioned_[i] == template_.varargs_id;
    signature.uses_kwargs |= mentioned_[i] == template_.kwargs_id;
  }
}

std::unique_ptr<Statement> Parser::macro_statement() {
  auto made = new_statement(SType::macro);
  next();
  ExpressionPtr name = target_name();
  made->name = name->name;
  made->name_id = name->name_id;
  made->signature = signature();
  std::size_t mentions = mentioned_.size();
  int loops = std::exchange(loop_depth_, 0);
  made->body = block_body({"endmacro"});
  loop_depth_ = loops;
  expect_name("endmacro");
  note_mentions(*made->signature, mentions);
  return made;
}

std::unique_ptr<Statement> Parser::call_statement() {
  auto made = new_statement(SType::call_block);
  next();
  made->signature = is_op("(") ? signature() : std::make_unique<Signature>();
  made->expressions.push_back(expression());
  if (made->expressions[0]->type != EType::call) stop("expected a call");
  std::size_t mentions = mentioned_.size();
  int loops = std::exchange(loop_depth_, 0);
  made->body = block_body({"endcall"});
  loop_depth_ = loops;
  expect_name("endcall");
  note_mentions(*made->signature, mentions);
  return made;
}

std::unique_ptr<Statement> Parser::with_statement() {
  auto made = new_statement(SType::with);
  next();
  while (!is(Token::Type::block_end)) {
    if (!made->targets.empty()) expect_op(",");
    made->targets.push_back(target(false, {}));
    expect_op("=");
    made->expressions.push_back(expression());
  }
  made->body = block_body({"endwith"});
  expect_name("endwith");
  return made;
}

std::unique_ptr<Statement> Parser::block_statement() {
  auto made = new_statement(SType::block);
  next();
  made->name = expect_any_name();
  while (is_name("scoped") || is_name("required")) next();
  made->body = block_body({"endblock"});
  expect_name("endblock");
  skip_name(made->name);
  return made;
}

std::unique_ptr<Statement> Parser::body_statement(SType type, std::string_view end) {
  auto made = new_statement(type);
  next();
  if (type == SType::filter_block) made->expressions.push_back(filter(nullptr, true));
  if (type == SType::autoescape) made->expressions.push_back(expression());
  int loops = loop_depth_;
  if (type == SType::generation) loop_depth_ = 0;  // jinja2 makes a function of it
  made->body = block_body({end});
  loop_depth_ = loops;
  expect_name(end);
  return made;
}

ExpressionPtr Parser::target_name() {
  auto made = node(EType::name, now().line);
  made->name = expect_any_name();
  for (const char* fixed : {"true", "false", "none", "True", "False", "None"})
    if (made->name == fixed) stop(fmt::format("can't assign to '{}'", fixed));
  made->name_id = intern(made->name);
  return made;
}

ExpressionPtr Parser::target_item(bool with_namespace) {
  Nesting nesting(*this);
  if (is_op("(")) {
    next();
    ExpressionPtr made = target(with_namespace, {});
    expect_op(")");
    return made;
  }
  if (!is(Token::Type::name)) stop(fmt::format("can't assign to {}", describe(now())));
  ExpressionPtr made = target_name();
  if (!with_namespace || !skip_op(".")) return made;
  made->type = EType::target;
  made->name = expect_any_name();
  made->constant = literal(made->name);
  return made;
}

ExpressionPtr Parser::target(bool with_namespace, Names end_names) {
  int line = now().line;
  auto [items, is_tuple] = comma_separated(end_names, [&] { return target_item(with_namespace); });
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (items.empty()) stop(fmt::format("expected a variable name, got {}", describe(now())));
  return node(EType::tuple, line, std::move(items));
}

}  // namespace steelyard::jinja
