"""x."""
def test_a(source_run):
    import subprocess
    print(subprocess.run(["find",str(source_run),"-type","f"],capture_output=True,text=True).stdout)
    print((source_run/"result.json").read_text()[-900:])
    print((source_run/"metrics.csv").read_text()[-900:])
    assert 0
