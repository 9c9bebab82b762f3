// Serves a directory with MongoDB's engine on a Unix socket, whose path it prints; ends when its standard input does.
const [, , engine, directory] = process.argv;

require(engine)
  .open(directory)
  .then((opened) => {
    console.log(opened.socketPath);
    process.stdin.resume();
    process.stdin.on('end', () => opened.close().then(() => process.exit(0)));
  });
