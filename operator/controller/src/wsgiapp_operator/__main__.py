"""`python -m wsgiapp_operator`, as the image starts it: the operator."""

from wsgiapp_operator.main import main

if __name__ == "__main__":
    main()
